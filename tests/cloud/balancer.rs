//! A TCP load balancer: each connection goes to the next healthy target, round-robin.
//!
//! A target is healthy while its `/readyz` answers 200, checked twice a second. A target that
//! refuses a connection is skipped at once. Must not know the protocols that it forwards.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// A server that connections can be forwarded to.
#[derive(Debug)]
struct Target {
    address: SocketAddr,
    health: SocketAddr,
    healthy: AtomicBool,
}

/// A listener and its targets. Dropping it stops accepting connections.
#[derive(Debug)]
pub(crate) struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    targets: Mutex<Vec<Arc<Target>>>,
    next_index: AtomicUsize,
}

impl Balancer {
    /// Accepts connections on `listener`. There are no targets at first.
    pub(crate) fn start(runtime: &Handle, listener: TcpListener) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared::default());
        let (accept_shared, health_shared) = (Arc::clone(&shared), Arc::clone(&shared));
        let tasks = vec![
            runtime.spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let shared = Arc::clone(&accept_shared);
                    tokio::spawn(async move {
                        if let Some(server) = shared.connect().await {
                            let _ = forward(client, server).await;
                        }
                    });
                }
            }),
            runtime.spawn(async move { health_shared.check_health().await }),
        ];
        Ok(Self { address, shared, tasks })
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a target, which becomes healthy once its health listener reports readiness.
    pub(crate) fn add(&self, address: SocketAddr, health: SocketAddr) {
        self.shared.lock().push(Arc::new(Target { address, health, healthy: AtomicBool::new(false) }));
    }

    /// Removes a target; its open connections stay.
    pub(crate) fn remove(&self, address: SocketAddr) {
        self.shared.lock().retain(|target| target.address != address);
    }

    /// The number of healthy targets.
    pub(crate) fn healthy_count(&self) -> usize {
        self.shared.lock().iter().filter(|t| t.healthy.load(Ordering::Relaxed)).count()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Target>>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Option<TcpStream> {
        let mut targets = self.lock().clone();
        let first = self.next_index.fetch_add(1, Ordering::Relaxed) % targets.len().max(1);
        targets.rotate_left(first);
        // Healthy targets first; if none is healthy, try the others too.
        targets.sort_by_key(|t| !t.healthy.load(Ordering::Relaxed));
        for target in targets {
            if let Ok(Ok(server)) = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target.address)).await {
                return Some(server);
            }
            target.healthy.store(false, Ordering::Relaxed);
        }
        None
    }

    async fn check_health(&self) {
        let mut tick = tokio::time::interval(HEALTH_CHECK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let targets = self.lock().clone();
            let checks = targets.iter().map(|target| {
                let target = Arc::clone(target);
                tokio::spawn(async move {
                    let ready = tokio::time::timeout(HEALTH_CHECK_TIMEOUT, is_ready(target.health)).await;
                    target.healthy.store(matches!(ready, Ok(Ok(true))), Ordering::Relaxed);
                })
            });
            for check in checks.collect::<Vec<_>>() {
                let _ = check.await;
            }
        }
    }
}

async fn is_ready(health: SocketAddr) -> std::io::Result<bool> {
    let mut socket = TcpStream::connect(health).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {health}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    socket.read_exact(&mut status).await?;
    Ok(status.ends_with(b" 200"))
}

async fn forward(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_millis(500);
const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
