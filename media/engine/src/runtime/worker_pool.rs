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

use crate::runtime::placement::Placement;

/// Runs connections; clones share the workers. Dropping the last clone stops the workers and drops
/// the tasks that still run on them.
#[derive(Debug, Clone, Default)]
pub struct WorkerPool(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    workers: Vec<Worker>,
    placement: Placement,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Connections.
    connections: Arc<AtomicUsize>,
}

impl WorkerPool {
    /// A pool without threads: connections run on the runtime that accepts them.
    pub fn inline() -> Self {
        Self(None)
    }

    /// Starts one worker per processor. Must be called inside the runtime that runs shared tasks.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let stop = CancellationToken::new();
        let pool = Arc::new(OnceLock::new());
        let workers = (0..count).map(|n| start_worker(n, &pool, stop.clone())).collect::<io::Result<Vec<_>>>()?;
        let inner = Arc::new(Inner { workers, placement: Placement::new(count, MAX_LEAD), _stop: stop.drop_guard() });
        let _ = pool.set(Arc::downgrade(&inner));
        Ok(Self(Some(inner)))
    }

    /// Starts the pool, or logs why it cannot be started and falls back to [`WorkerPool::inline`].
    pub fn start_or_inline() -> Self {
        Self::start().unwrap_or_else(|err| {
            log::warn!(err:%; "could not start the worker threads; connections run on the threads that accept them");
            Self::inline()
        })
    }

    #[cfg(test)]
    pub(crate) fn placement(&self) -> &Placement {
        &self.0.as_ref().unwrap().placement
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
        let worker = &inner.workers[inner.pick()];
        let open_connection = OpenConnection::count(&worker.connections);
        let socket = socket.into_std();
        // The socket must be registered with the I/O driver of the worker's runtime.
        let moved = async move {
            match socket.and_then(TcpStream::from_std) {
                Ok(socket) => connection(socket).await,
                Err(err) => log::warn!(err:%; "could not move a connection to a worker thread"),
            }
            drop(open_connection);
        };
        tasks.spawn_on(moved, &worker.runtime);
    }
}

impl Inner {
    fn pick(&self) -> usize {
        let connections: Vec<_> =
            self.workers.iter().map(|worker| Some(worker.connections.load(Ordering::Relaxed))).collect();
        self.placement.pick(&connections, || self.busy()).unwrap_or(0)
    }

    fn busy(&self) -> Vec<Duration> {
        self.workers.iter().map(|worker| worker.runtime.metrics().worker_total_busy_duration(0)).collect()
    }
}

/// Counts a connection of a worker until it is dropped.
struct OpenConnection(Arc<AtomicUsize>);

impl OpenConnection {
    fn count(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The worker on which the tasks of a stream should run, if there is one.
#[derive(Debug, Clone, Default)]
pub struct WorkerAffinity(Option<(Weak<Inner>, usize)>);

impl WorkerAffinity {
    /// The worker of the calling thread.
    pub fn current() -> Self {
        Self(
            CONTEXT
                .with(|context| context.get().and_then(|context| Some((context.pool.get()?.clone(), context.index)))),
        )
    }

    /// Starts a task that processes the publisher's data: on the same worker, which is awake when
    /// data arrives, or on the shared runtime if that worker is half busy.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.spawn_cpu_bound(0, task)
    }

    /// Like [`Self::spawn`], for a task that will use about `percent` of the worker's time.
    pub fn spawn_cpu_bound<T: Send + 'static>(
        &self,
        percent: u32,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        match self.worker() {
            Some((pool, n)) if pool.placement.try_reserve(n, percent, || pool.busy()) => {
                pool.workers[n].runtime.spawn(task)
            }
            _ => spawn_shared(task),
        }
    }

    /// True if the calling task runs on this worker and should continue on the shared runtime
    /// because the worker is overloaded.
    pub fn should_migrate(&self) -> bool {
        let is_current = |n| CONTEXT.with(|context| context.get().is_some_and(|context| context.index == n));
        self.worker().is_some_and(|(pool, n)| is_current(n) && pool.placement.claim_migration(n, || pool.busy()))
    }

    fn worker(&self) -> Option<(Arc<Inner>, usize)> {
        self.0.as_ref().and_then(|(pool, n)| Some((pool.upgrade()?, *n)))
    }
}

/// Starts a task that serves many connections on the shared runtime, from any thread.
pub fn spawn_shared<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    CONTEXT.with(|context| match context.get() {
        Some(context) => context.shared_runtime.spawn(task),
        None => tokio::spawn(task),
    })
}

/// Thread-local state of a worker.
struct WorkerContext {
    /// The multi-threaded runtime that started the pool.
    shared_runtime: Handle,
    pool: Arc<OnceLock<Weak<Inner>>>,
    index: usize,
}

thread_local! {
    static CONTEXT: OnceCell<WorkerContext> = const { OnceCell::new() };
}

fn start_worker(n: usize, pool: &Arc<OnceLock<Weak<Inner>>>, stop: CancellationToken) -> io::Result<Worker> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (worker, context) = (
        runtime.handle().clone(),
        WorkerContext { shared_runtime: Handle::current(), pool: Arc::clone(pool), index: n },
    );
    std::thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
        CONTEXT.with(|cell| _ = cell.set(context));
        runtime.block_on(stop.cancelled());
    })?;
    Ok(Worker { runtime: worker, connections: Arc::default() })
}

/// See [`Placement::new`].
const MAX_LEAD: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn serving_thread(workers: &WorkerPool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tasks, (socket, _)) = (TaskTracker::new(), listener.accept().await.unwrap());
        workers.spawn(&tasks, socket, |mut socket| async move {
            let name = || std::thread::current().name().unwrap_or_default().to_owned();
            let shared = spawn_shared(async move { name() }).await.unwrap();
            assert!(!shared.starts_with("worker-"), "{shared}");
            let (affinity, thread) = (WorkerAffinity::current(), name());
            let affine_thread =
                tokio::task::spawn_blocking(move || affinity.spawn(async move { name() })).await.unwrap();
            assert_eq!(affine_thread.await.unwrap().starts_with("worker-"), thread.starts_with("worker-"));
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
        let workers = WorkerPool::start().unwrap();
        assert!(serving_thread(&workers).await.starts_with("worker-"));
        assert!(!serving_thread(&WorkerPool::inline()).await.starts_with("worker-"));
        let connections = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        assert_eq!(workers.0.unwrap().workers.iter().map(connections).sum::<usize>(), 0, "no longer counted");
    }

    #[tokio::test]
    async fn running_connections_are_dropped_with_the_pool() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (workers, (socket, _)) = (WorkerPool::start().unwrap(), listener.accept().await.unwrap());
        workers.spawn(&TaskTracker::new(), socket, |socket| async move {
            std::future::pending::<()>().await;
            drop(socket);
        });
        drop(workers);
        let end = tokio::time::timeout(Duration::from_secs(10), client.read(&mut [0])).await.expect("closed");
        assert_eq!(end.unwrap(), 0);
    }
}
