//! Listens for RTMP and RTMPS, and gives each connection a task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::config;
use headwater_api::error::Chain;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Shared};
use super::link::Io;
use super::loopback::Loopback;
use super::metrics::Metrics;
use super::play::Fanouts;
use crate::admission::Admission;
use crate::apps::Apps;
use crate::hub::Hub;
use crate::lanes::Lanes;
use crate::listen::{ListenError, listen};

/// The listeners, open but not served yet.
#[derive(Debug)]
pub struct Server {
    plain: (TcpListener, SocketAddr),
    tls: Option<((TcpListener, SocketAddr), Arc<rustls::ServerConfig>)>,
    max_connections: usize,
    metrics: Metrics,
    loopback: Arc<Loopback>,
}

impl Server {
    /// Opens the listeners; the one for TLS only if there is a certificate.
    ///
    /// # Errors
    /// If an address is taken or not ours.
    pub fn bind(config: &config::Rtmp, tls: Option<Arc<rustls::ServerConfig>>) -> Result<Self, ListenError> {
        let plain = listen("rtmp", config.listen)?;
        let tls = match tls {
            Some(tls) => Some((listen("rtmps", config.tls_listen)?, tls)),
            None => None,
        };
        Ok(Self {
            plain,
            tls,
            max_connections: config.max_connections.get(),
            metrics: Metrics::default(),
            loopback: Arc::new(Loopback::new()),
        })
    }

    /// Where RTMP listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.plain.1
    }

    /// Where RTMPS listens, if it does.
    pub fn tls_local_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|((_, address), _)| *address)
    }

    /// What it counts.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Publishes something to this server, once it runs, and plays it, until that has worked once.
    pub fn prove(&self) -> impl Future<Output = ()> + Send + 'static {
        let (loopback, address) = (Arc::clone(&self.loopback), self.plain.1);
        async move { loopback.prove(address).await }
    }

    /// Says whether something that this server published to itself has been played from it since the start.
    pub fn pulse(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let outcome = self.loopback.outcome.subscribe();
        move || outcome.borrow().clone()
    }

    /// Serves until `drain` is cancelled: then nobody is let in, everybody is told, and it returns once all are gone.
    pub async fn run(self, hub: Hub, apps: Apps, admission: Admission, lanes: Lanes, drain: CancellationToken) {
        let Self { plain, tls, max_connections, metrics, loopback } = self;
        let shared = Arc::new(Shared { hub, apps, fanouts: Fanouts::default(), metrics, loopback, admission });
        let door = Door {
            shared,
            places: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))),
            tasks: TaskTracker::new(),
            lanes,
            drain,
        };
        let (tls_listener, acceptor) = tls.map(|((listener, _), config)| (listener, TlsAcceptor::from(config))).unzip();
        tokio::join!(door.accept(Some(plain.0), None), door.accept(tls_listener, acceptor));
        door.tasks.close();
        door.tasks.wait().await;
    }
}

struct Door {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    lanes: Lanes,
    drain: CancellationToken,
}

impl Door {
    async fn accept(&self, listener: Option<TcpListener>, tls: Option<TlsAcceptor>) {
        let Some(listener) = listener else { return };
        loop {
            let accepted = tokio::select! {
                () = self.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.welcome(socket, peer, tls.as_ref()),
                Err(e) => {
                    // Out of descriptors, most likely: more connections must end before more can begin.
                    log::error!(err:% = Chain(&e); "could not accept an rtmp connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn welcome(&self, socket: TcpStream, peer: SocketAddr, tls: Option<&TlsAcceptor>) {
        let metrics = &self.shared.metrics;
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            metrics.turned_away.inc();
            log::warn!(peer:%; "rtmp connection turned away, too many are open");
            return;
        };
        metrics.accepted.inc();
        metrics.connections.inc();
        let place = Place { _permit: place, metrics: metrics.clone() };
        // Replies and frames must leave at once; without this a join takes 40 ms. A socket that refuses is closed already.
        let _ = socket.set_nodelay(true);
        let shared = Arc::clone(&self.shared);
        let drain = self.drain.clone();
        let tls = tls.cloned();
        self.lanes.spawn(&self.tasks, socket, move |socket| async move {
            match tls {
                None => Connection::new(shared, Io::Plain(socket), peer).run(drain).await,
                Some(tls) => match tokio::time::timeout(TLS_HANDSHAKE, tls.accept(socket)).await {
                    Ok(Ok(stream)) => {
                        Box::pin(Connection::new(shared, Io::Tls(Box::new(stream)), peer).run(drain)).await;
                    }
                    Ok(Err(e)) => log::debug!(peer:%, err:% = Chain(&e); "no tls handshake"),
                    Err(_) => log::debug!(peer:%; "no tls handshake in time"),
                },
            }
            drop(place);
        });
    }
}

/// One of the connections that may be open.
struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Metrics,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

const TLS_HANDSHAKE: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
