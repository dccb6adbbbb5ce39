//! A pool of single-threaded workers. Each connection stays on one worker, and only as many workers
//! are used as the load needs.
//!
//! A connection needs microseconds of CPU time per event, and waking an idle thread on another core
//! costs as much again. Connections therefore go to the first worker until it is half busy, then to
//! the next. Per-stream work (packaging, packetizing) runs on the worker of the publisher while
//! that has capacity ([`WorkerAffinity`]); other work that many connections share runs on the
//! multi-threaded runtime ([`spawn_shared`]). Must not know what a connection is for.

use std::cell::OnceCell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::runtime::placement::Fill;

/// Runs connections; clones share the workers. Dropping the last clone stops the workers and drops
/// the tasks that still run on them.
#[derive(Debug, Clone, Default)]
pub struct Lanes(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    lanes: Vec<Lane>,
    fill: Fill,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    /// Connections.
    open: Arc<AtomicUsize>,
}

impl Lanes {
    /// A pool without threads: connections run on the runtime that accepts them.
    pub fn here() -> Self {
        Self(None)
    }

    /// Starts one worker per processor. Must be called inside the runtime that runs shared tasks.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let stop = CancellationToken::new();
        let all = Arc::new(OnceLock::new());
        let lanes = (0..count).map(|n| lane(n, &all, stop.clone())).collect::<io::Result<Vec<_>>>()?;
        let inner = Arc::new(Inner { lanes, fill: Fill::new(count, MOST_AHEAD), _stop: stop.drop_guard() });
        let _ = all.set(Arc::downgrade(&inner));
        Ok(Self(Some(inner)))
    }

    #[cfg(test)]
    pub(crate) fn fill(&self) -> &Fill {
        &self.0.as_ref().unwrap().fill
    }

    /// Runs `connection` on a worker, tracked by `tasks`. Closes a socket that cannot be moved.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        tasks: &TaskTracker,
        socket: TcpStream,
        connection: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) {
        let Some(inner) = &self.0 else {
            tasks.spawn(connection(socket));
            return;
        };
        let lane = &inner.lanes[inner.pick()];
        let place = Place::take(&lane.open);
        let socket = socket.into_std();
        // The socket must be registered with the I/O driver of the worker's runtime.
        let moved = async move {
            match socket.and_then(TcpStream::from_std) {
                Ok(socket) => connection(socket).await,
                Err(err) => log::warn!(err:%; "could not move a connection to a worker thread"),
            }
            drop(place);
        };
        tasks.spawn_on(moved, &lane.runtime);
    }
}

impl Inner {
    fn pick(&self) -> usize {
        let open: Vec<_> = self.lanes.iter().map(|lane| Some(lane.open.load(Ordering::Relaxed))).collect();
        self.fill.pick(&open, || self.busy()).unwrap_or(0)
    }

    fn busy(&self) -> Vec<Duration> {
        self.lanes.iter().map(|lane| lane.runtime.metrics().worker_total_busy_duration(0)).collect()
    }
}

/// Counts a connection of a worker until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The worker on which the tasks of a stream should run, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Home(Option<(Weak<Inner>, usize)>);

impl Home {
    /// The worker of the calling thread.
    pub fn here() -> Self {
        Self(HERE.with(|here| here.get().and_then(|here| Some((here.all.get()?.clone(), here.n)))))
    }

    /// Starts a task that processes the publisher's data: on the same worker, which is awake when
    /// data arrives, or on the shared runtime if that worker is half busy.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.spawn_heavy(0, task)
    }

    /// Like [`Self::spawn`], for a task that will use about `percent` of the worker's time.
    pub fn spawn_heavy<T: Send + 'static>(
        &self,
        percent: u32,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        match self.lane() {
            Some((all, n)) if all.fill.begin(n, percent, || all.busy()) => all.lanes[n].runtime.spawn(task),
            _ => spawn_shared(task),
        }
    }

    /// True if the calling task runs on this worker and should continue on the shared runtime
    /// because the worker is overloaded.
    pub fn must_leave(&self) -> bool {
        let is_here = |n| HERE.with(|here| here.get().is_some_and(|here| here.n == n));
        self.lane().is_some_and(|(all, n)| is_here(n) && all.fill.must_one_leave(n, || all.busy()))
    }

    fn lane(&self) -> Option<(Arc<Inner>, usize)> {
        self.0.as_ref().and_then(|(all, n)| Some((all.upgrade()?, *n)))
    }
}

/// Starts a task that serves many connections on the shared runtime, from any thread.
pub fn spawn_shared<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    HERE.with(|here| match here.get() {
        Some(here) => here.beside.spawn(task),
        None => tokio::spawn(task),
    })
}

/// Thread-local state of a worker.
struct Here {
    /// The multi-threaded runtime that started the pool.
    beside: Handle,
    all: Arc<OnceLock<Weak<Inner>>>,
    n: usize,
}

thread_local! {
    static HERE: OnceCell<Here> = const { OnceCell::new() };
}

fn lane(n: usize, all: &Arc<OnceLock<Weak<Inner>>>, stop: CancellationToken) -> io::Result<Lane> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (lane, here) = (runtime.handle().clone(), Here { beside: Handle::current(), all: Arc::clone(all), n });
    std::thread::Builder::new().name(format!("lane-{n}")).spawn(move || {
        HERE.with(|cell| _ = cell.set(here));
        runtime.block_on(stop.cancelled());
    })?;
    Ok(Lane { runtime: lane, open: Arc::default() })
}

/// See [`Placement::new`].
const MOST_AHEAD: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn served_by(lanes: &Lanes) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tasks, (socket, _)) = (TaskTracker::new(), listener.accept().await.unwrap());
        lanes.spawn(&tasks, socket, |mut socket| async move {
            let name = || std::thread::current().name().unwrap_or_default().to_owned();
            let shared = spawn_shared(async move { name() }).await.unwrap();
            assert!(!shared.starts_with("lane-"), "{shared}");
            let (home, here) = (Home::here(), name());
            let at_home = tokio::task::spawn_blocking(move || home.spawn(async move { name() })).await.unwrap();
            assert_eq!(at_home.await.unwrap().starts_with("lane-"), here.starts_with("lane-"));
            socket.write_all(name().as_bytes()).await.unwrap();
        });
        let mut name = String::new();
        client.read_to_string(&mut name).await.unwrap();
        tasks.close();
        tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await.expect("tracked until it ends");
        name
    }

    #[tokio::test]
    async fn connection_runs_on_a_worker_and_shared_tasks_do_not() {
        let lanes = Lanes::start().unwrap();
        assert!(served_by(&lanes).await.starts_with("lane-"));
        assert!(!served_by(&Lanes::here()).await.starts_with("lane-"));
        let open = |lane: &Lane| lane.open.load(Ordering::Relaxed);
        assert_eq!(lanes.0.unwrap().lanes.iter().map(open).sum::<usize>(), 0, "no longer counted");
    }

    #[tokio::test]
    async fn running_connections_are_dropped_with_the_pool() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (lanes, (socket, _)) = (Lanes::start().unwrap(), listener.accept().await.unwrap());
        lanes.spawn(&TaskTracker::new(), socket, |socket| async move {
            std::future::pending::<()>().await;
            drop(socket);
        });
        drop(lanes);
        let end = tokio::time::timeout(Duration::from_secs(10), client.read(&mut [0])).await.expect("closed");
        assert_eq!(end.unwrap(), 0);
    }
}
