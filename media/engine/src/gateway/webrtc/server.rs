//! The WebRTC gateway: opens the UDP sockets and runs the worker threads.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_api::config;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::gateway::webrtc::play::mailbox::{Command, Mailbox};
use crate::gateway::webrtc::play::worker::{Shared, Worker};
use crate::gateway::webrtc::signalling::{Directory, Place, Whep};
use crate::gateway::webrtc::transport::candidates::candidates;
use crate::gateway::webrtc::transport::dtls::Identity;
use crate::gateway::webrtc::transport::liveness::Pulse;
use crate::gateway::webrtc::transport::udp::Socket;
use crate::runtime::listener::ListenError;

/// Maximum number of workers, one port each: by default 50000 to 50063.
const MAX_WORKERS: usize = 64;

/// Timeouts that tests shorten.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A session without a valid STUN check for this duration is closed (RFC 7675 §5.1: 30 s).
    pub consent: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { consent: Duration::from_secs(30) }
    }
}

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
    pulses: Vec<Arc<Pulse>>,
}

impl Gateway {
    /// Binds one UDP port per worker. `addresses` are the host candidates of SDP answers, preferred
    /// first; if empty, the addresses of the interfaces are used.
    ///
    /// # Errors
    /// Fails if a port is in use or the interfaces cannot be listed.
    pub fn bind(config: &config::Webrtc, addresses: &[IpAddr]) -> Result<Self, BindError> {
        Self::bind_with(config, addresses, Limits::default())
    }

    /// Like [`Gateway::bind`], with other limits.
    ///
    /// # Errors
    /// Fails if a port is in use or the interfaces cannot be listed.
    pub fn bind_with(config: &config::Webrtc, addresses: &[IpAddr], limits: Limits) -> Result<Self, BindError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { cores() } else { usize::from(config.workers) }.min(MAX_WORKERS);
        let addresses = candidates(addresses)?;
        let identity = Arc::new(Identity::new().map_err(io::Error::other)?);
        let shared = Shared {
            identity: Arc::clone(&identity),
            metrics: Metrics::default(),
            directory: Arc::new(Directory::new(config.max_viewers.get(), count)),
            consent: limits.consent,
        };
        let mut workers = Vec::with_capacity(count);
        let mut places = Vec::with_capacity(count);
        let mut ports = Vec::with_capacity(count);
        let mut pulses = Vec::with_capacity(count);
        for n in 0..count {
            let wanted = match config.port {
                0 => 0,
                port => port.checked_add(n as u16).ok_or_else(|| {
                    io::Error::other(format!("[webrtc] port {port} leaves no room for {count} workers"))
                })?,
            };
            let socket = Socket::bind(wanted).map_err(|source| {
                BindError::Port(ListenError {
                    what: "webrtc",
                    address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, wanted)),
                    source,
                })
            })?;
            let port = socket.port()?;
            let mailbox = Arc::new(Mailbox::new(socket.wake_handle()));
            let candidates = addresses.iter().map(|&ip| SocketAddr::new(ip, port)).collect();
            let pulse = Arc::new(Pulse::new());
            pulses.push(Arc::clone(&pulse));
            places.push(Place { mailbox: Arc::clone(&mailbox), pulse: Arc::clone(&pulse), candidates });
            workers.push(Worker::new(socket, mailbox, pulse, shared.clone()));
            ports.push(port);
        }
        let whep = Whep::new(places, identity.fingerprint, shared.directory, shared.metrics);
        Ok(Self { ports, whep, workers, pulses })
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
    pub fn pulse(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let pulses = self.pulses.clone();
        move || {
            let now = Instant::now();
            pulses.iter().enumerate().try_for_each(|(n, p)| p.check(now).map_err(|e| format!("worker {n} {e}")))
        }
    }

    /// Runs the workers until `drain` is cancelled, then closes all sessions and joins the threads.
    ///
    /// # Errors
    /// Fails if a thread cannot be started.
    pub async fn run(self, drain: CancellationToken) -> io::Result<()> {
        let mailboxes: Vec<Arc<Mailbox>> = self.workers.iter().map(|w| Arc::clone(&w.mailbox)).collect();
        let mut ended = Vec::with_capacity(mailboxes.len());
        for (n, worker) in self.workers.into_iter().enumerate() {
            let (done, wait) = oneshot::channel::<()>();
            std::thread::Builder::new().name(format!("webrtc-{n}")).spawn(move || {
                worker.run();
                drop(done);
            })?;
            ended.push(wait);
        }
        drain.cancelled().await;
        for mailbox in &mailboxes {
            mailbox.send(Command::Stop);
        }
        for wait in ended {
            // The error means that the sender was dropped, which signals the end of the thread.
            let _ = wait.await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn liveness_check_reports_a_worker_that_has_panicked() {
        let config = config::Webrtc { port: 0, workers: 2, ..config::Webrtc::default() };
        let gateway = Gateway::bind(&config, &[]).unwrap();
        let pulse = gateway.pulse();
        assert_eq!(pulse().unwrap_err(), "worker 0 has not begun");
        let mailboxes: Vec<_> = gateway.workers.iter().map(|w| Arc::clone(&w.mailbox)).collect();
        let pulses = gateway.pulses.clone();
        let drain = CancellationToken::new();
        let served = tokio::spawn(gateway.run(drain.clone()));
        until(|| pulse().is_ok()).await;
        mailboxes[1].send(Command::Panic);
        until(|| pulse().is_err()).await;
        assert_eq!(pulse().unwrap_err(), "worker 1 has ended");
        assert!(pulses[1].has_ended() && !pulses[0].has_ended());
        drain.cancel();
        served.await.unwrap().unwrap();
    }

    #[test]
    fn bind_error_names_the_port_in_use() {
        let config = config::Webrtc { port: 0, workers: 1, ..config::Webrtc::default() };
        let port = Gateway::bind(&config, &[]).unwrap().ports()[0];
        let _taken = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        let refused = Gateway::bind(&config::Webrtc { port, ..config.clone() }, &[]).unwrap_err();
        assert_eq!(refused.to_string(), format!("could not listen on [::]:{port} for webrtc"));
        let refused = Gateway::bind(&config::Webrtc { port: 65_535, workers: 2, ..config }, &[]).unwrap_err();
        assert!(
            matches!(&refused, BindError::Other(e) if e.to_string().contains("no room for 2 workers")),
            "{refused}"
        );
    }

    async fn until(mut is: impl FnMut() -> bool) {
        let wait = async {
            while !is() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    }
}
