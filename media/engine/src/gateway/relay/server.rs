//! Listens for edges, and gives each connection a task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::config;
use headwater_api::error::Chain;
use headwater_wire::relay::{ClusterSecret, Message, Refusal};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::{Link, LinkError};
use super::metrics::Metrics;
use super::play::{Place, Play};
use super::publish::Relay;
use super::upstreams::{MAX_HOPS, Upstreams};
use crate::hub::{Hub, Stream};
use crate::listen::{ListenError, listen};

/// The listener, open but not served yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    max_connections: usize,
}

impl Server {
    /// Opens the listener.
    ///
    /// # Errors
    /// If the address is taken or not ours.
    pub fn bind(config: &config::Relay) -> Result<Self, ListenError> {
        let (listener, address) = listen("relay", config.listen)?;
        Ok(Self { listener, address, max_connections: config.max_connections.get() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves, with the secret and the counters of `relay`, until `drain` is cancelled: then edges are told to look elsewhere, and it returns once all are gone.
    pub async fn run(self, hub: Hub, relay: Relay, drain: CancellationToken) {
        let Self { listener, max_connections, .. } = self;
        let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        let (secret, upstreams) = (relay.secret().clone(), relay.upstreams().clone());
        let farewells = Arc::new(Semaphore::new(MAX_FAREWELLS));
        let visits = Arc::new(Visits { hub, secret, upstreams, metrics: relay.metrics().clone(), drain });
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = visits.drain.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    visits.metrics.accepted.inc();
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        visits.metrics.turned_away.inc();
                        log::warn!(peer:%; "relay connection turned away, too many are open");
                        // Beyond that, the closed socket must do.
                        if let Ok(farewell) = Arc::clone(&farewells).try_acquire_owned() {
                            let visits = Arc::clone(&visits);
                            tasks.spawn(async move {
                                let _ = tokio::time::timeout(FAREWELL, visits.turn_away(socket)).await;
                                drop(farewell);
                            });
                        }
                        continue;
                    };
                    let visits = Arc::clone(&visits);
                    tasks.spawn(async move {
                        visits.serve(socket, peer).await;
                        drop(place);
                    });
                }
                Err(e) => {
                    log::error!(err:% = Chain(&e); "could not accept a relay connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }
}

/// What all connections share.
#[derive(Debug)]
struct Visits {
    hub: Hub,
    secret: ClusterSecret,
    upstreams: Upstreams,
    metrics: Metrics,
    drain: CancellationToken,
}

impl Visits {
    async fn serve(&self, socket: TcpStream, peer: SocketAddr) {
        let mut link = match Link::answer(socket, &self.secret, HANDSHAKE).await {
            Ok(link) => link,
            Err(e) => {
                self.metrics.strangers.inc();
                // Health checks connect and say nothing; whoever says something wrong is worth a line.
                let level = if matches!(e, LinkError::Hello(_)) { log::Level::Warn } else { log::Level::Debug };
                log::log!(level, peer:%, err:% = Chain(&e); "relay connection refused");
                return;
            }
        };
        match self.welcome(&mut link, peer).await {
            Ok(Some(play)) => {
                self.metrics.edges.inc();
                play.run(link, &self.drain, &self.metrics).await;
                self.metrics.edges.dec();
            }
            Ok(None) => {}
            Err(e) => log::debug!(peer:%, err:% = Chain(&e); "relay connection closed"),
        }
    }

    /// Says to an edge that there is no place, so that it goes elsewhere or waits, and whether the stream is here at all: others may
    /// want to know who owns it.
    async fn turn_away(&self, socket: TcpStream) -> Result<(), LinkError> {
        let mut link = Link::answer(socket, &self.secret, FAREWELL).await?;
        let Message::Subscribe { app, stream_id, reach, .. } = link.incoming.next_within(FAREWELL).await? else {
            return Err(LinkError::OutOfPlace);
        };
        let is_here = |name: &StreamName| self.hub.published(name).is_some() || self.upstreams.hops(name).is_some();
        let may_be_had = StreamName::new(&app, &stream_id).is_ok_and(|name| reach > 1 || is_here(&name));
        let why = if may_be_had { Refusal::Full } else { Refusal::NotFound };
        link.outgoing.say(&Message::Refused(why), FAREWELL).await
    }

    /// Hears what the edge wants; `None` if it cannot have it.
    async fn welcome(&self, link: &mut Link, peer: SocketAddr) -> Result<Option<Play>, LinkError> {
        let Message::Subscribe { app, stream_id, history, reach } = link.incoming.next_within(HANDSHAKE).await? else {
            return Err(LinkError::OutOfPlace);
        };
        let found = self.find(&app, &stream_id, reach).await.ok_or(Refusal::NotFound);
        let found = if self.drain.is_cancelled() { found.and(Err(Refusal::Draining)) } else { found };
        match found {
            Ok((stream, hops)) => {
                Ok(Some(Play::new(stream, Place { hops, history, peer }, self.hub.history_segments())))
            }
            Err(why) => {
                log::info!(peer:%, app = app.escape_default().to_string().as_str(), reason:? = why; "relay refused");
                link.outgoing.say(&Message::Refused(why), HANDSHAKE).await?;
                Ok(None)
            }
        }
    }

    async fn find(&self, app: &str, stream_id: &str, reach: u8) -> Option<(Arc<Stream>, u8)> {
        let name = StreamName::new(app, stream_id).ok()?;
        if let Some(stream) = self.hub.published(&name) {
            return Some((stream, 1));
        }
        if reach < 2 && self.upstreams.hops(&name).is_none() {
            return None;
        }
        let stream = self.hub.find(&name).await.ok()?;
        // One that waits for its source to come back must not be passed on: two nodes could wait for each other.
        let hops = self.upstreams.hops(&name)? + 1;
        (hops <= MAX_HOPS).then_some((stream, hops))
    }
}

/// From the first byte to the wish.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Edges that are told that there is no place, at once at most: each costs a handshake.
const MAX_FAREWELLS: usize = 16;
/// For all of it.
const FAREWELL: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
