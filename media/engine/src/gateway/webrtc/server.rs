//! The WebRTC gateway: opens the UDP sockets and runs the worker threads.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use headwater_api::config;
use headwater_api::error::Chain;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::events::EventBus;
use crate::gateway::webrtc::directory::SessionDirectory;
use crate::gateway::webrtc::limits::Limits;
use crate::gateway::webrtc::play::mailbox::{Command, Mailbox};
use crate::gateway::webrtc::play::worker::{SharedContext, Worker};
use crate::gateway::webrtc::play::worker_handle::WorkerHandle;
use crate::gateway::webrtc::signalling::Whep;
use crate::gateway::webrtc::transport::candidates::candidates;
use crate::gateway::webrtc::transport::dtls::Identity;
use crate::gateway::webrtc::transport::liveness::Liveness;
use crate::gateway::webrtc::transport::udp::Socket;
use crate::runtime::client_pool::SharePolicy;
use crate::runtime::listener::ListenError;
use crate::runtime::stages::Stages;

/// Maximum number of workers, one port each: by default 50000 to 50063.
const MAX_WORKERS: usize = 64;

/// Why the gateway could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A port is unavailable.
    #[error(transparent)]
    Port(ListenError),
    /// The interfaces could not be listed, the certificate could not be generated, or the port
    /// numbers would exceed 65,535.
    #[error(transparent)]
    Other(#[from] io::Error),
}

/// The WebRTC gateway with its ports bound and its workers not yet started.
#[derive(Debug)]
pub struct Gateway {
    ports: Vec<u16>,
    whep: Whep,
    workers: Vec<Worker>,
    liveness: Vec<Arc<Liveness>>,
}

impl Gateway {
    /// Binds one UDP port per worker. `addresses` are the host candidates of SDP answers, preferred
    /// first; if empty, the addresses of the interfaces are used. `shares` limits the sessions of
    /// one client.
    ///
    /// # Errors
    /// Fails if a port is in use or the interfaces cannot be listed.
    pub fn bind(
        config: &config::Webrtc,
        shares: &SharePolicy,
        addresses: &[IpAddr],
        events: EventBus,
    ) -> Result<Self, BindError> {
        Self::bind_with(config, shares, addresses, events, Limits::default())
    }

    /// Like [`Gateway::bind`], with other limits.
    ///
    /// # Errors
    /// Fails if a port is in use or the interfaces cannot be listed.
    pub fn bind_with(
        config: &config::Webrtc,
        shares: &SharePolicy,
        addresses: &[IpAddr],
        events: EventBus,
        limits: Limits,
    ) -> Result<Self, BindError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { cores() } else { usize::from(config.workers) }.min(MAX_WORKERS);
        let addresses = candidates(addresses)?;
        let identity = Arc::new(Identity::new().map_err(io::Error::other)?);
        let context = SharedContext {
            identity: Arc::clone(&identity),
            metrics: Metrics::default(),
            events,
            directory: Arc::new(SessionDirectory::new(
                config.max_viewers.get(),
                config.max_connecting.get(),
                count,
                shares,
            )),
            limits,
        };
        let mut workers = Vec::with_capacity(count);
        let mut handles = Vec::with_capacity(count);
        let mut ports = Vec::with_capacity(count);
        let mut liveness = Vec::with_capacity(count);
        for n in 0..count {
            let port = match config.port {
                0 => 0,
                port => port.checked_add(n as u16).ok_or_else(|| {
                    io::Error::other(format!("[webrtc] port {port} leaves no room for {count} workers"))
                })?,
            };
            let socket = Socket::bind(port).map_err(|source| {
                BindError::Port(ListenError {
                    service: "webrtc",
                    address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
                    source,
                })
            })?;
            let bound_port = socket.port()?;
            let mailbox = Arc::new(Mailbox::new(socket.wake_handle()));
            let candidates = addresses.iter().map(|&ip| SocketAddr::new(ip, bound_port)).collect();
            let worker_liveness = Arc::new(Liveness::new());
            liveness.push(Arc::clone(&worker_liveness));
            handles.push(WorkerHandle {
                mailbox: Arc::clone(&mailbox),
                liveness: Arc::clone(&worker_liveness),
                candidates,
            });
            workers.push(Worker::new(socket, mailbox, worker_liveness, context.clone()));
            ports.push(bound_port);
        }
        let whep = Whep::new(handles, identity.fingerprint, context.directory, context.metrics);
        Ok(Self { ports, whep, workers, liveness })
    }

    /// Returns the UDP ports, one per worker.
    pub fn ports(&self) -> Vec<u16> {
        self.ports.clone()
    }

    /// Returns the WHEP service for the HTTP handlers.
    pub fn whep(&self) -> Whep {
        self.whep.clone()
    }

    /// Returns a liveness check of all workers. It fails with a description of the first worker
    /// that has not started, hangs or has ended.
    pub fn liveness_check(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let liveness = self.liveness.clone();
        move || {
            let now = Instant::now();
            liveness
                .iter()
                .enumerate()
                .try_for_each(|(n, worker)| worker.check(now).map_err(|e| format!("worker {n} {e}")))
        }
    }

    /// Adds the gateway to the stages: its counters, the check of its workers, and their threads.
    pub fn mount(self, stages: &mut Stages) {
        self.whep.metrics().register(stages.own_metrics());
        stages.add_liveness("webrtc", Box::new(self.liveness_check()));
        let workers = self.run(stages.drain().close_viewers.clone());
        stages.add_serving(async move {
            if let Err(e) = workers.await {
                log::error!(err:% = Chain(&e); "could not start the WebRTC workers");
            }
        });
    }

    /// Runs the workers until `drain` is cancelled, then closes all sessions and joins the threads.
    ///
    /// # Errors
    /// Fails if a thread cannot be started.
    pub async fn run(self, drain: CancellationToken) -> io::Result<()> {
        let mailboxes: Vec<Arc<Mailbox>> = self.workers.iter().map(|w| Arc::clone(&w.mailbox)).collect();
        let mut done_rxs = Vec::with_capacity(mailboxes.len());
        for (n, worker) in self.workers.into_iter().enumerate() {
            let (done_tx, done_rx) = oneshot::channel::<()>();
            std::thread::Builder::new().name(format!("webrtc-{n}")).spawn(move || {
                worker.run();
                drop(done_tx);
            })?;
            done_rxs.push(done_rx);
        }
        drain.cancelled().await;
        for mailbox in &mailboxes {
            mailbox.send(Command::Stop);
        }
        for done_rx in done_rxs {
            // The error means that the sender was dropped, which signals the end of the thread.
            let _ = done_rx.await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn bind(config: &config::Webrtc) -> Result<Gateway, BindError> {
        let shares = SharePolicy::new(&headwater_api::Config::default());
        Gateway::bind(config, &shares, &[], EventBus::default())
    }

    #[tokio::test]
    async fn liveness_check_reports_a_worker_that_has_panicked() {
        let config = config::Webrtc { port: 0, workers: 2, ..config::Webrtc::default() };
        let gateway = bind(&config).unwrap();
        let check = gateway.liveness_check();
        assert_eq!(check().unwrap_err(), "worker 0 has not started");
        let mailboxes: Vec<_> = gateway.workers.iter().map(|w| Arc::clone(&w.mailbox)).collect();
        let liveness = gateway.liveness.clone();
        let drain = CancellationToken::new();
        let served = tokio::spawn(gateway.run(drain.clone()));
        eventually(|| check().is_ok()).await;
        mailboxes[1].send(Command::Panic);
        eventually(|| check().is_err()).await;
        assert_eq!(check().unwrap_err(), "worker 1 has ended");
        assert!(liveness[1].has_ended() && !liveness[0].has_ended());
        drain.cancel();
        served.await.unwrap().unwrap();
    }

    #[test]
    fn bind_error_names_the_port_in_use() {
        let config = config::Webrtc { port: 0, workers: 1, ..config::Webrtc::default() };
        let port = bind(&config).unwrap().ports()[0];
        let _taken = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        let refused = bind(&config::Webrtc { port, ..config.clone() }).unwrap_err();
        assert_eq!(refused.to_string(), format!("could not listen on [::]:{port} for webrtc"));
        let refused = bind(&config::Webrtc { port: 65_535, workers: 2, ..config }).unwrap_err();
        assert!(
            matches!(&refused, BindError::Other(e) if e.to_string().contains("no room for 2 workers")),
            "{refused}"
        );
    }

    async fn eventually(mut condition: impl FnMut() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    }
}
