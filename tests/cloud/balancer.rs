//! A plain balancer for TCP: each connection goes to the next healthy target, in turns, whoever it comes from.
//!
//! A target is healthy while its `/readyz` says 200, asked twice a second; one that refuses a connection is passed over at
//! once. Knows nothing of what it passes on.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// Where connections may go.
#[derive(Debug)]
struct Target {
    address: SocketAddr,
    health: SocketAddr,
    healthy: AtomicBool,
}

/// One listener and its targets. Dropped = it takes no more connections.
#[derive(Debug)]
pub(crate) struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    targets: Mutex<Vec<Arc<Target>>>,
    turn: AtomicUsize,
}

impl Balancer {
    /// Listens on `listener` for no targets yet.
    pub(crate) fn start(runtime: &Handle, listener: TcpListener) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared::default());
        let (serving, looking) = (Arc::clone(&shared), Arc::clone(&shared));
        let tasks = vec![
            runtime.spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let shared = Arc::clone(&serving);
                    tokio::spawn(async move {
                        if let Some(server) = shared.connect().await {
                            let _ = pass(client, server).await;
                        }
                    });
                }
            }),
            runtime.spawn(async move { looking.watch_health().await }),
        ];
        Ok(Self { address, shared, tasks })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// One more target, healthy once its health listener says so.
    pub(crate) fn add(&self, address: SocketAddr, health: SocketAddr) {
        self.shared.lock().push(Arc::new(Target { address, health, healthy: AtomicBool::new(false) }));
    }

    /// No longer a target; connections to it go on.
    pub(crate) fn remove(&self, address: SocketAddr) {
        self.shared.lock().retain(|target| target.address != address);
    }

    /// How many targets are healthy now.
    pub(crate) fn healthy(&self) -> usize {
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
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % targets.len().max(1);
        targets.rotate_left(turn);
        // Healthy ones in turn; if none is known to be, any may be better than nothing.
        targets.sort_by_key(|t| !t.healthy.load(Ordering::Relaxed));
        for target in targets {
            if let Ok(Ok(server)) = tokio::time::timeout(CONNECT, TcpStream::connect(target.address)).await {
                return Some(server);
            }
            target.healthy.store(false, Ordering::Relaxed);
        }
        None
    }

    async fn watch_health(&self) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let targets = self.lock().clone();
            let looks = targets.iter().map(|target| {
                let target = Arc::clone(target);
                tokio::spawn(async move {
                    let ready = tokio::time::timeout(LOOK_WITHIN, is_ready(target.health)).await;
                    target.healthy.store(matches!(ready, Ok(Ok(true))), Ordering::Relaxed);
                })
            });
            for look in looks.collect::<Vec<_>>() {
                let _ = look.await;
            }
        }
    }
}

async fn is_ready(health: SocketAddr) -> std::io::Result<bool> {
    let mut socket = TcpStream::connect(health).await?;
    let ask = format!("GET /readyz HTTP/1.1\r\nhost: {health}\r\nconnection: close\r\n\r\n");
    socket.write_all(ask.as_bytes()).await?;
    let mut status = [0; 12];
    socket.read_exact(&mut status).await?;
    Ok(status.ends_with(b" 200"))
}

async fn pass(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

const CONNECT: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(500);
const LOOK_WITHIN: Duration = Duration::from_secs(1);
