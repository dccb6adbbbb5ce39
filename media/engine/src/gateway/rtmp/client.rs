//! The client of one connection: its address, app and credentials, what it may request, and the
//! events that report what it does.
//!
//! ```text
//!   app, stream id, query --> checks --> Request, which waits for the hub --> Outcome
//!                                '-----> Refusal
//! ```
//!
//! Must not know sockets, messages or replies.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use headwater_api::StreamName;
use headwater_api::documents::Grant;
use headwater_wire::rtmp::Query;
use headwater_wire::rtmp::session::code;

use super::permission::Permission;
use super::shared::Shared;
use crate::access::{AccessError, AccessRequest, Credentials};
use crate::events::{Event, Protocol};
use crate::hub::{FindError, Hub, Producer, PublishError, Stream};
use crate::runtime::client_pool::{PoolError, PoolPlace};

/// The client of one connection.
#[derive(Debug)]
pub(super) struct Client {
    shared: Arc<Shared>,
    peer: SocketAddr,
    /// Empty until the client has connected to an app.
    app: String,
    app_query: Option<Query>,
}

/// What a request gets.
type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// A publish or play request that waits for `access` and for the hub, which may ask the cluster.
/// Dropping it withdraws it.
pub(super) enum Request {
    Publish { stream_id: String, result: Answer<Publishing> },
    Play { stream_id: String, result: Answer<(Arc<Stream>, Permission)> },
}

/// The result of a [`Request`], with its stream id.
pub(super) enum Outcome {
    /// The stream to publish.
    Publish(String, Result<Publishing, Refusal>),
    /// The stream to play, and the permission to play it.
    Play(String, Result<(Arc<Stream>, Permission), Refusal>),
}

/// What a client that may publish gets.
pub(super) struct Publishing {
    /// The place that the stream's name takes; `None` for the loopback test. Before `producer`, so
    /// that the place is free when the name is.
    pub(super) place: Option<PoolPlace>,
    pub(super) producer: Box<Producer>,
    pub(super) permission: Permission,
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// One of [`code`].
    pub(super) code: &'static str,
    pub(super) reason: String,
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, peer: SocketAddr) -> Self {
        Self { shared, peer, app: String::new(), app_query: None }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Enters an app; false if there is none of this name.
    pub(super) fn enter_app(&mut self, app: String, query: Option<Query>) -> bool {
        let is_unknown = || self.shared.access.check_app(&app) == Err(AccessError::UnknownApp);
        if !self.shared.loopback.accepts_app(&app) && is_unknown() {
            if self.shared.log_limiter.admits("unknown app refused", self.peer.ip()) {
                log::info!(peer:% = self.peer, app = printable(&app).as_str(); "unknown app refused");
            }
            return false;
        }
        self.app = app;
        self.app_query = query;
        true
    }

    /// Requests the name of a stream from the hub, if the client may publish it.
    pub(super) fn publish(&self, stream_id: &str, query: Option<&Query>) -> Result<Request, Refusal> {
        let name = StreamName::new(&self.app, stream_id)
            .map_err(|e| Refusal { code: code::BAD_NAME, reason: e.to_string() })?;
        let denied = |reason| Refusal { code: code::DENIED, reason };
        self.shared.admission.check_publisher().map_err(|e| denied(e.to_string()))?;
        // The loopback test has a hub of its own, whose streams are not counted.
        let names = (!self.is_loopback_test()).then(|| self.shared.stream_names.clone());
        let (hub, access) = (self.hub().clone(), self.authorize(Grant::Publish, &name, query));
        let client = self.peer.ip();
        let result = Box::pin(async move {
            let unauthorized = |e: AccessError| Refusal { code: code::UNAUTHORIZED, reason: e.to_string() };
            let mut permission = access.await.map_err(unauthorized)?;
            // Not before: strangers must not take the places.
            let place = names.map(|names| names.take(client)).transpose();
            let place = place.map_err(|e| denied(too_many_streams(e)))?;
            let producer = Box::new(hub.publish_owned(&name, "rtmp").await?);
            // Not before: a one-time token is used up only by a stream that can begin.
            permission.redeem().await.map_err(unauthorized)?;
            Ok(Publishing { place, producer, permission })
        });
        Ok(Request::Publish { stream_id: stream_id.to_owned(), result })
    }

    /// Requests a stream from the hub, if the client may play it.
    pub(super) fn play(&self, stream_id: &str, query: Option<&Query>) -> Result<Request, Refusal> {
        let name = StreamName::new(&self.app, stream_id).map_err(|_| Refusal::from(FindError::NotPublished))?;
        let failed = |reason| Refusal { code: code::PLAY_FAILED, reason };
        self.shared.admission.check_viewer().map_err(|e| failed(e.to_string()))?;
        let (hub, access) = (self.hub().clone(), self.authorize(Grant::Play, &name, query));
        let result = Box::pin(async move {
            let mut permission = access.await.map_err(|e| failed(e.to_string()))?;
            let stream = hub.find(&name).await?;
            permission.redeem().await.map_err(|e| failed(e.to_string()))?;
            Ok((stream, permission))
        });
        Ok(Request::Play { stream_id: stream_id.to_owned(), result })
    }

    /// Reports that the client publishes a stream.
    pub(super) fn on_publish_started(&self, stream: &str) {
        self.emit(Event::PublishStarted { stream: stream.to_owned(), protocol: Protocol::Rtmp, peer: self.peer });
    }

    /// Reports that the client no longer publishes a stream, of which it has sent this many frames.
    pub(super) fn on_publish_ended(&self, stream: &str, frames: u64) {
        self.emit(Event::PublishEnded { stream: stream.to_owned(), protocol: Protocol::Rtmp, peer: self.peer, frames });
    }

    /// Counts and reports a refused publish request.
    pub(super) fn on_publish_refused(&self, stream_id: &str, reason: String) {
        self.shared.metrics.publish_refused.inc();
        self.emit(Event::PublishRefused {
            app: printable(&self.app),
            stream_id: printable(stream_id),
            protocol: Protocol::Rtmp,
            peer: self.peer,
            reason,
        });
    }

    /// Reports that the client plays a stream.
    pub(super) fn on_play_started(&self, stream: &str) {
        self.emit(Event::ViewerJoined {
            stream: stream.to_owned(),
            protocol: Protocol::Rtmp,
            peer: Some(self.peer),
            session: None,
            setup: None,
        });
    }

    /// Counts and reports a refused play request.
    pub(super) fn on_play_refused(&self, stream_id: &str, reason: String) {
        self.shared.metrics.play_refused.inc();
        self.emit(Event::PlayRefused {
            app: printable(&self.app),
            stream_id: printable(stream_id),
            protocol: Protocol::Rtmp,
            peer: self.peer,
            reason,
        });
    }

    /// Level of the connection's log lines: the loopback test logs at debug level.
    pub(super) fn log_level(&self) -> log::Level {
        if self.is_loopback_test() { log::Level::Debug } else { log::Level::Info }
    }

    fn is_loopback_test(&self) -> bool {
        self.app == self.shared.loopback.app
    }

    /// The hub of the client's app.
    fn hub(&self) -> &Hub {
        if self.is_loopback_test() { &self.shared.loopback.hub } else { &self.shared.hub }
    }

    /// Decides whether the client may publish or play. The app of the loopback test is exempt: no
    /// other client can guess its name.
    fn authorize(
        &self,
        action: Grant,
        stream: &StreamName,
        query: Option<&Query>,
    ) -> impl Future<Output = Result<Permission, AccessError>> + Send + 'static {
        let access = (!self.is_loopback_test()).then(|| self.shared.access.clone());
        let (query, app_query) = (query.cloned(), self.app_query.clone());
        let (stream, client) = (stream.clone(), self.peer.ip());
        async move {
            let Some(access) = access else { return Ok(Permission(None)) };
            let credentials = Credentials::from_query(query.as_ref().map(Query::as_str))
                .with_app_query(app_query.as_ref().map(Query::as_str));
            let request = AccessRequest { action, stream: &stream, credentials, client };
            let grounds = access.authorize(&request).await?;
            Ok(Permission(Some((access, grounds))))
        }
    }

    /// Reports an event, unless this client is the loopback test.
    fn emit(&self, event: Event) {
        if self.is_loopback_test() {
            log::debug!(event:?; "event of the loopback test");
        } else {
            self.shared.events.emit(event);
        }
    }
}

impl Request {
    /// Polls the hub; most requests are ready at once. Must not be called again after the outcome.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        Poll::Ready(match self {
            Self::Publish { stream_id, result } => {
                let result = ready!(result.as_mut().poll(cx));
                Outcome::Publish(std::mem::take(stream_id), result)
            }
            Self::Play { stream_id, result } => {
                let result = ready!(result.as_mut().poll(cx));
                Outcome::Play(std::mem::take(stream_id), result)
            }
        })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Publish { stream_id, .. } | Self::Play { stream_id, .. }) = self;
        f.debug_tuple("Request").field(stream_id).finish()
    }
}

impl Refusal {
    /// The sentence for the client.
    pub(super) fn description(&self) -> &str {
        if self.code == code::STREAM_NOT_FOUND { "No stream of this name is being published." } else { &self.reason }
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        let code = match error {
            PublishError::AlreadyLive(_) | PublishError::LiveOnOtherNode { .. } => code::BAD_NAME,
            PublishError::TooManyStreams { .. } => code::DENIED,
        };
        Self { code, reason: error.to_string() }
    }
}

impl From<FindError> for Refusal {
    fn from(error: FindError) -> Self {
        let code = match error {
            FindError::NotPublished => code::STREAM_NOT_FOUND,
            FindError::AtCapacity
            | FindError::Unreachable
            | FindError::RegistryUnreachable
            | FindError::TooManySearches => code::PLAY_FAILED,
        };
        Self { code, reason: error.to_string() }
    }
}

fn too_many_streams(error: PoolError) -> String {
    match error {
        PoolError::Full { places } => PublishError::TooManyStreams { limit: places }.to_string(),
        PoolError::ShareUsed { share, .. } => format!("this address already publishes its share of {share} streams"),
    }
}

/// Makes a name from an unauthenticated peer safe to log: at most 128 printable ASCII characters.
fn printable(name: &str) -> String {
    name.chars().take(128).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}
