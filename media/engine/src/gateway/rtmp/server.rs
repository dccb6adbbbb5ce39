//! Listens for RTMP and RTMPS, and spawns a task for each connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::config;
use headwater_api::error::Chain;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::link::Io;
use super::loopback::LoopbackTest;
use super::metrics::Metrics;
use super::play::Fanouts;
use super::reassembly::ReassemblyBudget;
use super::shared::Shared;
use crate::access::Access;
use crate::events::EventBus;
use crate::hub::Hub;
use crate::node::admission::Admission;
use crate::runtime::client_pool::{ClientPool, PoolPlace, SharePolicy};
use crate::runtime::listener::{ListenError, listen};
use crate::runtime::log_limiter::LogLimiter;
use crate::runtime::stages::Stages;
use crate::runtime::worker_pool::WorkerPool;

/// The rooms that the server works with.
#[derive(Debug, Clone)]
pub struct Services {
    /// Live streams.
    pub hub: Hub,
    /// Who may publish and watch.
    pub access: Access,
    /// Whether this node has capacity for another client.
    pub admission: Admission,
    /// Receives what happens.
    pub events: EventBus,
    /// Limits the streams of one client.
    pub stream_names: ClientPool,
}

/// The open listeners; [`Server::run`] accepts from them.
#[derive(Debug)]
pub struct Server {
    plain: Option<(TcpListener, SocketAddr)>,
    tls: Option<((TcpListener, SocketAddr), Arc<rustls::ServerConfig>)>,
    connections: ClientPool,
    merge_audio: bool,
    metrics: Metrics,
    loopback: Arc<LoopbackTest>,
}

impl Server {
    /// Opens the listeners that are not off; RTMPS needs `tls`. `shares` limits how many
    /// connections one client may have.
    ///
    /// # Errors
    /// If an address is in use or does not belong to this machine.
    pub fn bind(
        config: &config::Rtmp,
        shares: &SharePolicy,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<Self, ListenError> {
        let plain = config.listen.address().map(|address| listen("rtmp", address)).transpose()?;
        let tls = match config.tls_listen.address().zip(tls) {
            Some((address, tls)) => Some((listen("rtmps", address)?, tls)),
            None => None,
        };
        Ok(Self {
            plain,
            tls,
            connections: shares.pool(config.max_connections.get()),
            merge_audio: config.merge_audio,
            metrics: Metrics::default(),
            loopback: Arc::new(LoopbackTest::new()),
        })
    }

    /// Address of the RTMP listener; `None` if it is off.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.plain.as_ref().map(|(_, address)| *address)
    }

    /// Address of the RTMPS listener; `None` if it is off.
    pub fn tls_local_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|((_, address), _)| *address)
    }

    /// The counters of this server; clones share them.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Publishes a test stream to the RTMP listener at `address` and plays it back, until that has
    /// succeeded once. The server must be running.
    pub fn run_loopback_test(&self, address: SocketAddr) -> impl Future<Output = ()> + Send + 'static {
        let loopback = Arc::clone(&self.loopback);
        async move { loopback.run(address).await }
    }

    /// Returns a check that fails until [`Server::run_loopback_test`] has succeeded; the error is
    /// the reason of the last attempt.
    pub fn loopback_check(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let outcome = self.loopback.outcome_tx.subscribe();
        move || outcome.borrow().clone()
    }

    /// Adds the server to the stages: its counters, the check of its loopback player if plain RTMP
    /// is on, and its tasks.
    pub fn mount(self, services: Services, stages: &mut Stages) {
        self.metrics().register(stages.own_metrics());
        if let Some(address) = self.local_addr() {
            stages.add_liveness("loopback", Box::new(self.loopback_check()));
            stages.add_background(self.run_loopback_test(address));
        }
        let (workers, drain) = (stages.workers(), stages.drain().stop_publishers.clone());
        stages.add_serving(self.run(services, workers, drain));
    }

    /// Serves until `drain` is cancelled. Then it accepts no more connections, notifies the peers,
    /// and returns once all connections are closed.
    pub async fn run(self, services: Services, workers: WorkerPool, drain: CancellationToken) {
        let Services { hub, access, admission, events, stream_names } = services;
        let Self { plain, tls, connections, merge_audio, metrics, loopback } = self;
        let (fanouts, reassembly) = (Fanouts::new(merge_audio), ReassemblyBudget::default());
        let log_limiter = Arc::new(LogLimiter::default());
        let shared = Shared {
            hub,
            access,
            events,
            fanouts,
            metrics,
            loopback,
            admission,
            stream_names,
            reassembly,
            log_limiter,
        };
        let acceptor = Acceptor { shared: Arc::new(shared), connections, tasks: TaskTracker::new(), workers, drain };
        let (tls_listener, tls_acceptor) =
            tls.map(|((listener, _), config)| (listener, TlsAcceptor::from(config))).unzip();
        let plain = plain.map(|(listener, _)| listener);
        tokio::join!(acceptor.accept(plain, None), acceptor.accept(tls_listener, tls_acceptor));
        acceptor.tasks.close();
        acceptor.tasks.wait().await;
    }
}

struct Acceptor {
    shared: Arc<Shared>,
    connections: ClientPool,
    tasks: TaskTracker,
    workers: WorkerPool,
    drain: CancellationToken,
}

impl Acceptor {
    async fn accept(&self, listener: Option<TcpListener>, tls: Option<TlsAcceptor>) {
        let Some(listener) = listener else { return };
        loop {
            let accepted = tokio::select! {
                () = self.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.spawn_connection(socket, peer, tls.as_ref()),
                Err(e) => {
                    // Most likely out of file descriptors: connections must close before more can
                    // open.
                    log::error!(err:% = Chain(&e); "could not accept an rtmp connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    fn spawn_connection(&self, socket: TcpStream, peer: SocketAddr, tls: Option<&TlsAcceptor>) {
        let metrics = &self.shared.metrics;
        let place = match self.connections.take(peer.ip()) {
            Ok(place) => place,
            Err(e) => {
                metrics.turned_away.inc();
                if self.shared.log_limiter.admits("rtmp connection turned away", peer.ip()) {
                    log::warn!(peer:%, err:% = e; "rtmp connection turned away, too many are open");
                }
                return;
            }
        };
        metrics.accepted.inc();
        metrics.connections.inc();
        let slot = ConnectionSlot { _place: place, metrics: metrics.clone() };
        // Replies and frames must leave at once: with Nagle's algorithm a join takes 40 ms longer.
        // This fails only if the socket is already closed.
        let _ = socket.set_nodelay(true);
        let shared = Arc::clone(&self.shared);
        let drain = self.drain.clone();
        let tls = tls.cloned();
        self.workers.spawn(&self.tasks, socket, move |socket| async move {
            match tls {
                None => Connection::new(shared, Io::Plain(socket), peer).run(drain).await,
                Some(tls) => match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
                    Ok(Ok(stream)) => {
                        Box::pin(Connection::new(shared, Io::Tls(Box::new(stream)), peer).run(drain)).await;
                    }
                    Ok(Err(e)) => log::debug!(peer:%, err:% = Chain(&e); "tls handshake failed"),
                    Err(_) => log::debug!(peer:%; "tls handshake timed out"),
                },
            }
            drop(slot);
        });
    }
}

/// One of the `max_connections` open connections; counted in the gauge until it is dropped.
struct ConnectionSlot {
    _place: PoolPlace,
    metrics: Metrics,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
