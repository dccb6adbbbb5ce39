//! Lanes: threads that each run the connections given to them, and nothing else; no more of them than the load needs.
//!
//! What a connection has to do at a time takes microseconds. Waking an idle thread for it, on another processor, costs as much
//! again; so connections go to the first lane until it is half busy, then to the next. What is made of a stream once runs on the
//! lane of its publisher ([`Home`]) while that has room; what many connections share otherwise runs beside the lanes
//! ([`spawn_shared`]), where threads help each other. Must not know what a connection is for.

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

use crate::fill::Fill;

/// Where connections run; clones share it. When the last is gone, what still runs on the lanes is dropped.
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
    /// No threads: connections run where they are accepted.
    pub fn here() -> Self {
        Self(None)
    }

    /// One lane per processor. Must be called inside the runtime where shared tasks are to run.
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

    /// What fills them.
    #[cfg(test)]
    pub(crate) fn fill(&self) -> &Fill {
        &self.0.as_ref().unwrap().fill
    }

    /// Runs `connection` on a lane, counted by `tasks`. A socket that cannot be moved is closed.
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
        // Readiness is heard of by the thread that registered the socket: it moves, too.
        let moved = async move {
            match socket.and_then(TcpStream::from_std) {
                Ok(socket) => connection(socket).await,
                Err(err) => log::warn!(err:%; "a connection could not be given to a thread"),
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

/// A connection that is counted.
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

/// The lane of a publisher, if it has one.
#[derive(Debug, Clone, Default)]
pub struct Home(Option<(Weak<Inner>, usize)>);

impl Home {
    /// The lane that this is called on.
    pub fn here() -> Self {
        Self(HERE.with(|here| here.get().and_then(|here| Some((here.all.get()?.clone(), here.n)))))
    }

    /// Starts a task that works on what comes in there: on that lane, which is awake then, or beside the lanes if it is
    /// half busy.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.spawn_heavy(0, task)
    }

    /// The same for a task that will make the lane busier by so many percent.
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

    /// True if the task that asks runs on the lane, and that has become so busy that it should go on beside the lanes.
    pub fn must_leave(&self) -> bool {
        let is_here = |n| HERE.with(|here| here.get().is_some_and(|here| here.n == n));
        self.lane().is_some_and(|(all, n)| is_here(n) && all.fill.must_one_leave(n, || all.busy()))
    }

    fn lane(&self) -> Option<(Arc<Inner>, usize)> {
        self.0.as_ref().and_then(|(all, n)| Some((all.upgrade()?, *n)))
    }
}

/// Starts a task that many connections share: beside the lanes, whoever starts it.
pub fn spawn_shared<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    HERE.with(|here| match here.get() {
        Some(here) => here.beside.spawn(task),
        None => tokio::spawn(task),
    })
}

/// What the thread of a lane knows of itself.
struct Here {
    /// The runtime that is no lane.
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

/// See [`Fill`].
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
        tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await.expect("counted to its end");
        name
    }

    #[tokio::test]
    async fn a_connection_runs_on_a_lane_or_here_and_what_it_shares_does_not() {
        let lanes = Lanes::start().unwrap();
        assert!(served_by(&lanes).await.starts_with("lane-"));
        assert!(!served_by(&Lanes::here()).await.starts_with("lane-"));
        let open = |lane: &Lane| lane.open.load(Ordering::Relaxed);
        assert_eq!(lanes.0.unwrap().lanes.iter().map(open).sum::<usize>(), 0, "no longer counted");
    }

    #[tokio::test]
    async fn what_still_runs_is_dropped_with_the_lanes() {
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
