//! Listens for edges, and spawns a task for each connection.

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
use super::upstreams::{MAX_HOPS, Upstreams};
use crate::gateway::relay::client::RelayClient;
use crate::gateway::relay::handshakes::{HandshakePool, PendingHandshake};
use crate::gateway::relay::served_stream::{ServedStream, Subscriber};
use crate::hub::{Hub, Stream};
use crate::runtime::listener::{ListenError, listen};
use crate::runtime::log_limiter::LogLimiter;
use crate::runtime::stages::Stages;

/// The open listener; [`Server::run`] accepts from it.
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
    /// If the address is in use or does not belong to this machine.
    pub fn bind(config: &config::Relay) -> Result<Self, ListenError> {
        let (listener, address) = listen("relay", config.listen)?;
        Ok(Self { listener, address, max_connections: config.max_connections.get() })
    }

    /// Address of the listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Adds the server to the stages, and the counters that it shares with the client `relay`.
    pub fn mount(self, hub: Hub, relay: RelayClient, stages: &mut Stages) {
        relay.metrics().register(stages.own_metrics());
        let drain = stages.drain().stop_publishers.clone();
        stages.add_serving(self.run(hub, relay, drain));
    }

    /// Serves until `drain` is cancelled, with the secret and the counters of `relay`. Then edges
    /// are asked to find another source, and it returns once all connections are closed.
    pub async fn run(self, hub: Hub, relay: RelayClient, drain: CancellationToken) {
        let Self { listener, max_connections, .. } = self;
        let (secret, upstreams) = (relay.secret().clone(), relay.upstreams().clone());
        let handler = Arc::new(ConnectionHandler {
            hub,
            secret,
            upstreams,
            metrics: relay.metrics().clone(),
            permits: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))),
            drain,
            log_limiter: LogLimiter::default(),
        });
        let (handshakes, tasks) = (HandshakePool::default(), TaskTracker::new());
        loop {
            let accepted = tokio::select! {
                () = handler.drain.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    handler.metrics.accepted.inc();
                    let (handler, handshake) = (Arc::clone(&handler), handshakes.begin());
                    tasks.spawn(async move { handler.serve(socket, peer, handshake).await });
                }
                Err(e) => {
                    log::error!(err:% = Chain(&e); "could not accept a relay connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }
}

/// State shared by all connections.
#[derive(Debug)]
struct ConnectionHandler {
    hub: Hub,
    secret: ClusterSecret,
    upstreams: Upstreams,
    metrics: Metrics,
    /// The places for edges, taken after authentication.
    permits: Arc<Semaphore>,
    drain: CancellationToken,
    log_limiter: LogLimiter,
}

impl ConnectionHandler {
    async fn serve(&self, socket: TcpStream, peer: SocketAddr, handshake: PendingHandshake) {
        let accepted = tokio::select! {
            accepted = Link::accept(socket, &self.secret, HANDSHAKE_TIMEOUT) => accepted,
            () = handshake.wait_until_replaced() => {
                self.metrics.unauthenticated.inc();
                log::debug!(peer:%; "relay connection closed, too many have not authenticated themselves");
                return;
            }
        };
        drop(handshake);
        let mut link = match accepted {
            Ok(link) => link,
            Err(e) => {
                self.metrics.unauthenticated.inc();
                // Health checks connect and send nothing; an invalid handshake deserves a warning.
                let level = if matches!(e, LinkError::Handshake(_)) { log::Level::Warn } else { log::Level::Debug };
                if level <= log::max_level() && self.log_limiter.admits("relay connection refused", peer.ip()) {
                    log::log!(level, peer:%, err:% = Chain(&e); "relay connection refused");
                }
                return;
            }
        };
        let Ok(_permit) = self.permits.try_acquire() else {
            if let Err(e) = self.refuse_full(link, peer).await {
                log::debug!(peer:%, err:% = Chain(&e); "relay connection closed");
            }
            return;
        };
        match self.accept_subscription(&mut link, peer).await {
            Ok(Some(served)) => {
                self.metrics.edges.inc();
                served.run(link, &self.drain, &self.metrics).await;
                self.metrics.edges.dec();
            }
            Ok(None) => {}
            Err(e) => log::debug!(peer:%, err:% = Chain(&e); "relay connection closed"),
        }
    }

    /// Refuses an edge because the node is full, so that it tries another source or waits. A stream
    /// that is not here is refused as such: nodes that probe for the owner must get that answer.
    async fn refuse_full(&self, mut link: Link, peer: SocketAddr) -> Result<(), LinkError> {
        let Message::Subscribe { app, stream_id, max_hops, .. } = link.reader.next_within(REFUSAL_TIMEOUT).await?
        else {
            return Err(LinkError::UnexpectedMessage);
        };
        let is_here = |name: &StreamName| self.hub.published(name).is_some() || self.upstreams.hops(name).is_some();
        let is_available = StreamName::new(&app, &stream_id).is_ok_and(|name| max_hops > 1 || is_here(&name));
        let reason = if is_available { Refusal::Full } else { Refusal::NotFound };
        self.metrics.turned_away.inc();
        log::warn!(peer:%; "relay subscription refused, as many edges as allowed are connected");
        link.writer.send(&Message::Refused(reason), REFUSAL_TIMEOUT).await
    }

    /// Reads the subscription; `None` if it was refused.
    async fn accept_subscription(&self, link: &mut Link, peer: SocketAddr) -> Result<Option<ServedStream>, LinkError> {
        let Message::Subscribe { app, stream_id, history, max_hops } =
            link.reader.next_within(SUBSCRIPTION_TIMEOUT).await?
        else {
            return Err(LinkError::UnexpectedMessage);
        };
        let found = self.find(&app, &stream_id, max_hops).await.ok_or(Refusal::NotFound);
        let found = if self.drain.is_cancelled() { found.and(Err(Refusal::Draining)) } else { found };
        match found {
            Ok((stream, hops)) => {
                Ok(Some(ServedStream::new(stream, Subscriber { hops, history, peer }, self.hub.history_segments())))
            }
            Err(reason) => {
                log::info!(peer:%, app = app.escape_default().to_string().as_str(), reason:?; "relay refused");
                link.writer.send(&Message::Refused(reason), REFUSAL_TIMEOUT).await?;
                Ok(None)
            }
        }
    }

    async fn find(&self, app: &str, stream_id: &str, max_hops: u8) -> Option<(Arc<Stream>, u8)> {
        let name = StreamName::new(app, stream_id).ok()?;
        if let Some(stream) = self.hub.published(&name) {
            return Some((stream, 1));
        }
        if max_hops < 2 && self.upstreams.hops(&name).is_none() {
            return None;
        }
        let stream = self.hub.find(&name).await.ok()?;
        // A stream without a source must not be relayed: two nodes could wait for each other.
        let hops = self.upstreams.hops(&name)? + 1;
        (hops <= MAX_HOPS).then_some((stream, hops))
    }
}

/// From accepting a connection to the proof that the peer knows the secret.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// From the proof to the subscription. Only a peer that knows the secret can take this long.
const SUBSCRIPTION_TIMEOUT: Duration = Duration::from_secs(5);
/// For a refusal, and while the relay is full for the subscription before it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
