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
use crate::gateway::relay::client::Relay;
use crate::gateway::relay::served_stream::{Place, Play};
use crate::hub::{Hub, Stream};
use crate::runtime::listener::{ListenError, listen};

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

    /// Serves until `drain` is cancelled, with the secret and the counters of `relay`. Then edges are
    /// asked to find another source, and it returns once all connections are closed.
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
                        // Beyond that limit the socket is closed without a reply.
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

/// State shared by all connections.
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
                // Health checks connect and send nothing; an invalid handshake deserves a warning.
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

    /// Refuses an edge because the node is full, so that it tries another source or waits. A stream
    /// that is not here is refused as such: nodes that probe for the owner must get that answer.
    async fn turn_away(&self, socket: TcpStream) -> Result<(), LinkError> {
        let mut link = Link::answer(socket, &self.secret, FAREWELL).await?;
        let Message::Subscribe { app, stream_id, reach, .. } = link.incoming.next_within(FAREWELL).await? else {
            return Err(LinkError::OutOfPlace);
        };
        let is_here = |name: &StreamName| self.hub.published(name).is_some() || self.upstreams.hops(name).is_some();
        let may_be_had = StreamName::new(&app, &stream_id).is_ok_and(|name| reach > 1 || is_here(&name));
        let reason = if may_be_had { Refusal::Full } else { Refusal::NotFound };
        link.outgoing.say(&Message::Refused(reason), FAREWELL).await
    }

    /// Reads the subscription; `None` if it was refused.
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
            Err(reason) => {
                log::info!(peer:%, app = app.escape_default().to_string().as_str(), reason:?; "relay refused");
                link.outgoing.say(&Message::Refused(reason), HANDSHAKE).await?;
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
        // A stream without a source must not be relayed: two nodes could wait for each other.
        let hops = self.upstreams.hops(&name)? + 1;
        (hops <= MAX_HOPS).then_some((stream, hops))
    }
}

/// From accepting the connection to the subscription.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Refusals that may run concurrently while the node is full: each costs a handshake.
const MAX_FAREWELLS: usize = 16;
/// For the handshake, the subscription and the refusal together.
const FAREWELL: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
