//! Load balancers: each connection goes to the next healthy target, round-robin; open connections
//! stay where they are.
//!
//! | | network (publishers) | application (pages and viewers) |
//! | --- | --- | --- |
//! | a target that refuses a connection | the next one is tried | the client gets 502 |
//! | a target that does not answer | the next one is tried after 0.3 s | 504 after 10 s |
//! | health checks | every 0.5 s; the last one counts | every 5 s; two failures, or two successes |
//!
//! The application load balancer has the timing of AWS's: a dead target still gets its share of
//! the new connections for up to 12 seconds. Unlike AWS's, it routes connections, not requests. A
//! target is healthy if its `/readyz` answers 200; a new one is checked every 0.5 s until it is.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// Kind of load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Forwards TCP, and hides targets that refuse connections.
    Network,
    /// Has the timing of an AWS Application Load Balancer.
    Application,
}

/// A server that connections can be forwarded to.
#[derive(Debug)]
struct Target {
    address: SocketAddr,
    health_address: SocketAddr,
    health: Mutex<Health>,
}

/// Result of the health checks.
#[derive(Debug, Clone, Copy)]
struct Health {
    state: State,
    /// Checks in a row that contradict the state.
    contradictions: u32,
    next_check_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Never healthy so far.
    New,
    Healthy,
    Unhealthy,
}

/// A listener and its targets. Dropping it stops accepting connections.
#[derive(Debug)]
pub(crate) struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    kind: Kind,
    targets: Mutex<Vec<Arc<Target>>>,
    next_index: AtomicUsize,
}

impl Balancer {
    /// Accepts connections on `listener`. There are no targets at first.
    pub(crate) fn start(runtime: &Handle, listener: TcpListener, kind: Kind) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared { kind, targets: Mutex::default(), next_index: AtomicUsize::new(0) });
        let (accept_shared, health_shared) = (Arc::clone(&shared), Arc::clone(&shared));
        let tasks = vec![
            runtime.spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let shared = Arc::clone(&accept_shared);
                    tokio::spawn(async move { shared.serve(client).await });
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

    /// Registers a target, which becomes healthy once its health listener reports readiness.
    /// Replaces a target with the same address.
    pub(crate) fn register(&self, address: SocketAddr, health_address: SocketAddr) {
        self.deregister(address);
        let health = Health { state: State::New, contradictions: 0, next_check_at: Instant::now() };
        self.shared.lock().push(Arc::new(Target { address, health_address, health: Mutex::new(health) }));
    }

    /// Deregisters a target; its open connections stay.
    pub(crate) fn deregister(&self, address: SocketAddr) {
        self.shared.lock().retain(|target| target.address != address);
    }

    /// The number of healthy targets.
    pub(crate) fn healthy_count(&self) -> usize {
        self.shared.lock().iter().filter(|target| target.is_healthy()).count()
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

    async fn serve(&self, client: TcpStream) {
        let result = match self.kind {
            Kind::Network => match self.connect_to_any().await {
                Some(server) => forward(client, server).await,
                None => Ok(()),
            },
            Kind::Application => match self.connect_to_next().await {
                Ok(server) => forward(client, server).await,
                Err(status) => refuse(client, status).await,
            },
        };
        // Either side may close its connection at any time.
        drop(result);
    }

    /// The targets in the order in which they are tried: healthy ones only, if there are any.
    fn candidates(&self) -> Vec<Arc<Target>> {
        let mut targets = self.lock().clone();
        if targets.iter().any(|target| target.is_healthy()) {
            targets.retain(|target| target.is_healthy());
        }
        let first = self.next_index.fetch_add(1, Ordering::Relaxed) % targets.len().max(1);
        targets.rotate_left(first);
        targets
    }

    async fn connect_to_any(&self) -> Option<TcpStream> {
        for target in self.candidates() {
            let connecting = TcpStream::connect(target.address);
            if let Ok(Ok(server)) = tokio::time::timeout(NETWORK_CONNECT_TIMEOUT, connecting).await {
                return Some(server);
            }
            target.lock().state = State::Unhealthy;
        }
        None
    }

    /// # Errors
    /// Returns the status line of the answer to the client.
    async fn connect_to_next(&self) -> Result<TcpStream, &'static str> {
        let target = self.candidates().into_iter().next().ok_or("503 Service Temporarily Unavailable")?;
        match tokio::time::timeout(APPLICATION_CONNECT_TIMEOUT, TcpStream::connect(target.address)).await {
            Ok(Ok(server)) => Ok(server),
            Ok(Err(_)) => Err("502 Bad Gateway"),
            Err(_) => Err("504 Gateway Time-out"),
        }
    }

    async fn check_health(&self) {
        let mut tick = tokio::time::interval(HEALTH_TICK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for target in self.lock().iter().filter(|target| target.lock().next_check_at <= Instant::now()) {
                let (target, kind) = (Arc::clone(target), self.kind);
                let mut health = target.lock();
                health.next_check_at = Instant::now() + kind.interval(health.state);
                drop(health);
                tokio::spawn(async move {
                    let ready = tokio::time::timeout(HEALTH_CHECK_TIMEOUT, is_ready(target.health_address)).await;
                    target.lock().on_check(matches!(ready, Ok(Ok(true))), kind.threshold());
                });
            }
        }
    }
}

impl Target {
    fn lock(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_healthy(&self) -> bool {
        self.lock().state == State::Healthy
    }
}

impl Health {
    fn on_check(&mut self, is_ready: bool, threshold: u32) {
        match (self.state, is_ready) {
            (State::New, true) => self.state = State::Healthy,
            (State::New, false) => {}
            (State::Healthy, true) | (State::Unhealthy, false) => self.contradictions = 0,
            (State::Healthy, false) | (State::Unhealthy, true) => {
                self.contradictions += 1;
                if self.contradictions >= threshold {
                    self.contradictions = 0;
                    self.state = if is_ready { State::Healthy } else { State::Unhealthy };
                }
            }
        }
    }
}

impl Kind {
    fn interval(self, state: State) -> Duration {
        if self == Self::Application && state != State::New { APPLICATION_CHECK_INTERVAL } else { HEALTH_TICK_INTERVAL }
    }

    fn threshold(self) -> u32 {
        if self == Self::Application { APPLICATION_THRESHOLD } else { 1 }
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

/// Forwards in both directions until either side closes.
async fn forward(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut client_rx, mut client_tx) = client.split();
    let (mut server_rx, mut server_tx) = server.split();
    tokio::select! {
        sent = tokio::io::copy(&mut client_rx, &mut server_tx) => sent,
        received = tokio::io::copy(&mut server_rx, &mut client_tx) => received,
    }
    .map(drop)
}

/// Answers the request of a client with an error, as an Application Load Balancer does.
async fn refuse(mut client: TcpStream, status: &str) -> std::io::Result<()> {
    // Bytes that are not read would reset the connection and discard the answer.
    let mut request = vec![0; 16 * 1024];
    let _ = tokio::time::timeout(REQUEST_TIMEOUT, client.read(&mut request)).await;
    let body = format!("<html><body><h1>{status}</h1></body></html>\r\n");
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: awselb/2.0\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    client.write_all((head + &body).as_bytes()).await?;
    client.shutdown().await
}

const NETWORK_CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
const APPLICATION_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const APPLICATION_CHECK_INTERVAL: Duration = Duration::from_secs(5);
const APPLICATION_THRESHOLD: u32 = 2;
const HEALTH_TICK_INTERVAL: Duration = Duration::from_millis(500);
const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_changes_state_after_two_contradicting_checks_in_a_row() {
        let mut health = Health { state: State::New, contradictions: 0, next_check_at: Instant::now() };
        let mut states = Vec::new();
        for is_ready in [false, true, false, true, false, false, true, false, true, true] {
            health.on_check(is_ready, APPLICATION_THRESHOLD);
            states.push(health.state == State::Healthy);
        }
        assert_eq!(states, [false, true, true, true, true, false, false, false, false, true]);
    }
}
