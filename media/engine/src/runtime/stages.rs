//! What the rooms of the engine register when they are mounted: metrics, liveness checks and tasks.
//!
//! Each room has one `mount(…, &mut Stages)`; it adds to the stages and starts nothing. The
//! assembly starts all tasks with [`Stages::spawn`] once every room is mounted. Must not know any
//! room.

use std::pin::Pin;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::runtime::worker_pool::WorkerPool;

/// A liveness check that does not block. Returns the reason of a failure.
pub type LivenessCheck = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The stages of a drain, one token each, cancelled in this order.
#[derive(Debug, Clone, Default)]
pub struct DrainStages {
    /// The drain has started: no new clients, and players are asked to move. Cancelled by the
    /// caller.
    pub started: CancellationToken,
    /// Publishers and relay links must close.
    pub stop_publishers: CancellationToken,
    /// Viewer connections must close.
    pub close_viewers: CancellationToken,
}

/// Collects what the rooms register.
pub struct Stages {
    metrics: Registry,
    liveness: Vec<(&'static str, LivenessCheck)>,
    serving: Vec<Task>,
    background: Vec<Task>,
    drain: DrainStages,
    deadline: Duration,
    workers: WorkerPool,
}

impl Stages {
    /// Nothing is mounted yet. A drain begins when `drain_started` is cancelled and lasts for
    /// `deadline` at most.
    pub fn new(drain_started: CancellationToken, deadline: Duration, workers: WorkerPool) -> Self {
        Self {
            metrics: Registry::default(),
            liveness: Vec::new(),
            serving: Vec::new(),
            background: Vec::new(),
            drain: DrainStages { started: drain_started, ..DrainStages::default() },
            deadline,
            workers,
        }
    }

    /// The registry of all metrics, without a prefix.
    pub fn metrics(&mut self) -> &mut Registry {
        &mut self.metrics
    }

    /// The registry of Headwater's own metrics: names get the prefix `headwater_`.
    pub fn own_metrics(&mut self) -> &mut Registry {
        self.metrics.sub_registry_with_prefix("headwater")
    }

    /// Adds a check that `/readyz` runs under this name.
    pub fn add_liveness(&mut self, name: &'static str, check: LivenessCheck) {
        self.liveness.push((name, check));
    }

    /// Adds a task that ends by itself during a drain; the drain waits for it.
    pub fn add_serving(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.serving.push(Box::pin(task));
    }

    /// Adds a task that runs until the drain is complete and is then aborted.
    pub fn add_background(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.background.push(Box::pin(task));
    }

    /// The tokens that tell a task to end.
    pub fn drain(&self) -> &DrainStages {
        &self.drain
    }

    /// How long a drain may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The threads that run connections.
    pub fn workers(&self) -> WorkerPool {
        self.workers.clone()
    }

    /// Everything that has been registered so far for `/metrics` and `/readyz`. Call it once, after
    /// all other rooms are mounted.
    pub fn take_observability(&mut self) -> (Registry, Vec<(&'static str, LivenessCheck)>) {
        (std::mem::take(&mut self.metrics), std::mem::take(&mut self.liveness))
    }

    /// Starts every task.
    pub fn spawn(self) -> RunningTasks {
        let start = |tasks: Vec<Task>| tasks.into_iter().collect::<JoinSet<()>>();
        RunningTasks {
            serving: start(self.serving),
            background: start(self.background),
            drain: self.drain,
            deadline: self.deadline,
        }
    }
}

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages")
            .field("serving", &self.serving.len())
            .field("background", &self.background.len())
            .finish_non_exhaustive()
    }
}

/// The tasks of all rooms. Dropping it aborts them.
#[derive(Debug)]
pub struct RunningTasks {
    serving: JoinSet<()>,
    background: JoinSet<()>,
    drain: DrainStages,
    deadline: Duration,
}

impl RunningTasks {
    /// Waits for the start of the drain, then for every serving task until the deadline. Aborts the
    /// rest.
    pub async fn join(&mut self) {
        self.drain.started.cancelled().await;
        let all = async { while self.serving.join_next().await.is_some() {} };
        if tokio::time::timeout(self.deadline, all).await.is_err() {
            log::warn!(tasks = self.serving.len(); "drain deadline exceeded, aborting the remaining tasks");
        }
        self.serving.shutdown().await;
    }

    /// Aborts the background tasks.
    pub async fn shutdown(mut self) {
        self.background.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn stages(deadline: Duration) -> (Stages, CancellationToken) {
        let started = CancellationToken::new();
        (Stages::new(started.clone(), deadline, WorkerPool::inline()), started)
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_a_serving_task_and_not_for_a_background_task() {
        let (mut stages, started) = stages(Duration::from_secs(10));
        let finished = Arc::new(AtomicBool::new(false));
        let (done, drain) = (Arc::clone(&finished), stages.drain().clone());
        stages.add_serving(async move {
            drain.started.cancelled().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            done.store(true, Ordering::Relaxed);
        });
        stages.add_background(std::future::pending());
        let mut tasks = stages.spawn();
        started.cancel();
        let begin = tokio::time::Instant::now();
        tasks.join().await;
        assert_eq!(begin.elapsed(), Duration::from_secs(3));
        assert!(finished.load(Ordering::Relaxed));
        tasks.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn drain_aborts_a_serving_task_at_the_deadline() {
        let (mut stages, started) = stages(Duration::from_secs(10));
        stages.add_serving(std::future::pending());
        let mut tasks = stages.spawn();
        started.cancel();
        let begin = tokio::time::Instant::now();
        tasks.join().await;
        assert_eq!(begin.elapsed(), Duration::from_secs(10));
    }
}
