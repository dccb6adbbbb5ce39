//! Listens for other nodes, and spawns a task for each connection: most are edges that pull a
//! stream; others ask for how long the owner of a stream has been silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::config;
use headwater_api::documents::NodeIncarnation;
use headwater_api::error::Chain;
use headwater_wire::relay::{Message, Owner, Refusal};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::{Link, LinkError};
use super::metrics::Metrics;
use super::upstreams::MAX_HOPS;
use crate::gateway::relay::client::RelayClient;
use crate::gateway::relay::handshakes::{HandshakePool, PendingHandshake};
use crate::gateway::relay::served_stream::{ServedStream, StreamOwner, Subscriber};
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
    /// The owner of the streams that are published here; `None` if they have no owner.
    this_node: Option<Owner>,
}

impl Server {
    /// Opens the listener.
    ///
    /// # Errors
    /// If the address is in use or does not belong to this machine.
    pub fn bind(config: &config::Relay) -> Result<Self, ListenError> {
        let (listener, address) = listen("relay", config.listen)?;
        Ok(Self { listener, address, max_connections: config.max_connections.get(), this_node: None })
    }

    /// Names the incarnation that owns the streams of this node; edges are told.
    #[must_use]
    pub fn with_incarnation(mut self, incarnation: &NodeIncarnation) -> Self {
        self.this_node = Some(Owner { node: incarnation.node.clone(), boot_epoch: incarnation.epoch.0 });
        self
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
        let Self { listener, max_connections, this_node, .. } = self;
        let handler = Arc::new(ConnectionHandler {
            hub,
            metrics: relay.metrics().clone(),
            relay,
            this_node,
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
    /// The pulls of this node.
    relay: RelayClient,
    metrics: Metrics,
    this_node: Option<Owner>,
    /// The places for edges, taken after authentication.
    permits: Arc<Semaphore>,
    drain: CancellationToken,
    log_limiter: LogLimiter,
}

impl ConnectionHandler {
    async fn serve(&self, socket: TcpStream, peer: SocketAddr, handshake: PendingHandshake) {
        let accepted = tokio::select! {
            accepted = Link::accept(socket, self.relay.secret(), HANDSHAKE_TIMEOUT) => accepted,
            () = handshake.wait_until_replaced() => {
                self.metrics.unauthenticated.inc();
                log::debug!(peer:%; "relay connection closed, too many have not authenticated themselves");
                return;
            }
        };
        drop(handshake);
        let link = match accepted {
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
        if let Err(e) = self.serve_link(link, peer).await {
            log::debug!(peer:%, err:% = Chain(&e); "relay connection closed");
        }
    }

    /// Handles the first message.
    async fn serve_link(&self, mut link: Link, peer: SocketAddr) -> Result<(), LinkError> {
        let permit = self.permits.try_acquire().ok();
        let timeout = if permit.is_some() { SUBSCRIPTION_TIMEOUT } else { REFUSAL_TIMEOUT };
        match link.reader.next_within(timeout).await? {
            Message::Subscribe { app, stream_id, max_hops, .. } if permit.is_none() => {
                self.refuse_full(&mut link, peer, &app, &stream_id, max_hops).await
            }
            Message::Subscribe { app, stream_id, history, max_hops } => {
                match self.find_to_serve(&app, &stream_id, max_hops).await {
                    Ok((stream, hops)) => {
                        let subscriber = self.subscriber(&link, &stream, hops, history, peer);
                        let served = ServedStream::new(stream, subscriber, self.hub.history_segments());
                        self.metrics.edges.inc();
                        served.run(link, &self.drain, &self.metrics).await;
                        self.metrics.edges.dec();
                        Ok(())
                    }
                    Err(reason) => {
                        log::info!(peer:%, app = app.escape_default().to_string().as_str(), reason:?; "relay refused");
                        link.writer.send(&Message::Refused(reason), REFUSAL_TIMEOUT).await
                    }
                }
            }
            // A full node answers, too.
            Message::AskWitness { app, stream_id, owner } => {
                let name = StreamName::new(&app, &stream_id).ok();
                let silence = name.and_then(|name| self.relay.silence_of(&name, &owner));
                let silent_ms = silence.map(|silence| u32::try_from(silence.as_millis()).unwrap_or(u32::MAX));
                self.metrics.testimonies.inc();
                link.writer.send(&Message::Testimony(silent_ms), REFUSAL_TIMEOUT).await
            }
            Message::Moved { app, stream_id } => {
                if let Some(watch) = StreamName::new(&app, &stream_id).ok().and_then(|n| self.relay.owner_watch(&n)) {
                    watch.on_moved();
                }
                Ok(())
            }
            _ => Err(LinkError::UnexpectedMessage),
        }
    }

    /// Refuses an edge because the node is full, so that it tries another source or waits. A stream
    /// that is not here is refused as such: nodes that probe for the owner must get that answer.
    async fn refuse_full(
        &self,
        link: &mut Link,
        peer: SocketAddr,
        app: &str,
        stream_id: &str,
        max_hops: u8,
    ) -> Result<(), LinkError> {
        let upstreams = self.relay.upstreams();
        let is_here = |name: &StreamName| self.hub.published(name).is_some() || upstreams.hops(name).is_some();
        let is_available = StreamName::new(app, stream_id).is_ok_and(|name| max_hops > 1 || is_here(&name));
        let reason = if is_available { Refusal::Full } else { Refusal::NotFound };
        self.metrics.turned_away.inc();
        log::warn!(peer:%; "relay subscription refused, as many edges as allowed are connected");
        link.writer.send(&Message::Refused(reason), REFUSAL_TIMEOUT).await
    }

    /// Finds the stream for an edge, and the number of hops that it is away from its publisher.
    async fn find_to_serve(&self, app: &str, stream_id: &str, max_hops: u8) -> Result<(Arc<Stream>, u8), Refusal> {
        let found = self.find(app, stream_id, max_hops).await.ok_or(Refusal::NotFound);
        if self.drain.is_cancelled() { found.and(Err(Refusal::Draining)) } else { found }
    }

    fn subscriber(&self, link: &Link, stream: &Stream, hops: u8, history: bool, peer: SocketAddr) -> Subscriber {
        let owner = if hops == 1 {
            self.this_node.clone().map(StreamOwner::ThisNode)
        } else {
            self.relay.owner_watch(stream.name()).map(StreamOwner::Pulled)
        };
        let owner = owner.filter(|_| link.peer_features.has_witness());
        Subscriber { hops, history, peer, owner, heartbeat_interval: self.relay.timing().heartbeat_interval }
    }

    async fn find(&self, app: &str, stream_id: &str, max_hops: u8) -> Option<(Arc<Stream>, u8)> {
        let name = StreamName::new(app, stream_id).ok()?;
        if let Some(stream) = self.hub.published(&name) {
            return Some((stream, 1));
        }
        if max_hops < 2 && self.relay.upstreams().hops(&name).is_none() {
            return None;
        }
        let stream = self.hub.find(&name).await.ok()?;
        // A stream without a source must not be relayed: two nodes could wait for each other.
        let hops = self.relay.upstreams().hops(&name)? + 1;
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
