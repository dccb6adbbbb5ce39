//! Opens the sockets and runs the workers.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_api::config;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::addresses::candidates;
use super::dtls::Identity;
use super::mailbox::{Command, Mailbox};
use super::metrics::Metrics;
use super::play::{Directory, Place, Whep};
use super::pulse::Pulse;
use super::udp::Socket;
use super::worker::{Shared, Worker};
use crate::listen::ListenError;

/// Workers at most: the ports 50000 to 50063.
const MAX_WORKERS: usize = 64;

/// What a test may want shorter.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A viewer that was not heard for so long is gone (RFC 7675 §5.1 says 30 s).
    pub consent: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { consent: Duration::from_secs(30) }
    }
}

/// Why the ports are not open.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// This one is not to be had.
    #[error(transparent)]
    Port(ListenError),
    /// The interfaces cannot be listed, there is no certificate, or the ports end below 65,536.
    #[error(transparent)]
    Other(#[from] io::Error),
}

/// The WebRTC room with its ports open.
#[derive(Debug)]
pub struct Gateway {
    ports: Vec<u16>,
    whep: Whep,
    workers: Vec<Worker>,
    pulses: Vec<Arc<Pulse>>,
}

impl Gateway {
    /// Opens a port per worker. `addresses`: what answers name, best first; none means those of the interfaces.
    ///
    /// # Errors
    /// If a port is taken, or the interfaces cannot be listed.
    pub fn bind(config: &config::Webrtc, addresses: &[IpAddr]) -> Result<Self, BindError> {
        Self::bind_with(config, addresses, Limits::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// If a port is taken, or the interfaces cannot be listed.
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

    /// UDP ports, one per worker.
    pub fn ports(&self) -> Vec<u16> {
        self.ports.clone()
    }

    /// The handle for the HTTP side.
    pub fn whep(&self) -> Whep {
        self.whep.clone()
    }

    /// Says whether every worker has come round lately; `Err` with the first that has not.
    pub fn pulse(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let pulses = self.pulses.clone();
        move || {
            let now = Instant::now();
            pulses.iter().enumerate().try_for_each(|(n, p)| p.check(now).map_err(|e| format!("worker {n} {e}")))
        }
    }

    /// Serves until drained; then every viewer is told and the threads end.
    ///
    /// # Errors
    /// If a thread cannot be started.
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
            // An error is the sender's end, which is what is waited for.
            let _ = wait.await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_dies_is_noticed_and_gets_no_more_viewers() {
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
    fn a_port_that_is_taken_is_named() {
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
