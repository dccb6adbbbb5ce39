//! Lanes: threads that each run the connections given to them, and nothing else; no more of them than the load needs.
//!
//! What a connection has to do at a time takes microseconds. Waking an idle thread for it, on another processor, costs as much
//! again; so connections go to the first lane until it is half busy, then to the next. What many connections share runs
//! beside the lanes ([`spawn_shared`]), where threads help each other. Must not know what a connection is for.

use std::cell::OnceCell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Where connections run; clones share it. When the last is gone, what still runs on the lanes is dropped.
#[derive(Debug, Clone, Default)]
pub struct Lanes(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    lanes: Vec<Lane>,
    gauge: Mutex<Gauge>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    /// Connections.
    open: Arc<AtomicUsize>,
}

/// What lanes have done lately.
#[derive(Debug)]
struct Gauge {
    at: Instant,
    /// How long each lane was busy until then, since it began.
    busy: Vec<Duration>,
    /// Which share of the time before that moment, in percent.
    percent: Vec<u32>,
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
        let lanes = (0..count).map(|n| lane(n, stop.clone())).collect::<io::Result<Vec<_>>>()?;
        let gauge = Gauge { at: Instant::now(), busy: vec![Duration::ZERO; count], percent: vec![0; count] };
        Ok(Self(Some(Arc::new(Inner { lanes, gauge: Mutex::new(gauge), _stop: stop.drop_guard() }))))
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
        let mut gauge = self.gauge.lock().unwrap_or_else(PoisonError::into_inner);
        if gauge.at.elapsed() >= LOOK_EVERY {
            let busy = self.lanes.iter().map(|lane| lane.runtime.metrics().worker_total_busy_duration(0)).collect();
            gauge.look(Instant::now(), busy);
        }
        let open: Vec<_> = self.lanes.iter().map(|lane| lane.open.load(Ordering::Relaxed)).collect();
        choose(&gauge.percent, &open)
    }
}

impl Gauge {
    fn look(&mut self, now: Instant, busy: Vec<Duration>) {
        let passed_us = now.saturating_duration_since(self.at).as_micros().max(1);
        let percent = |(now, before): (&Duration, &Duration)| {
            u32::try_from(100 * now.saturating_sub(*before).as_micros() / passed_us).unwrap_or(100).min(100)
        };
        self.percent = busy.iter().zip(&self.busy).map(percent).collect();
        (self.busy, self.at) = (busy, now);
    }
}

/// The first lane that is less than half busy; where there is none, the least busy one. None gets far ahead of another: those
/// who are quiet now may all wake at once.
fn choose(percent: &[u32], open: &[usize]) -> usize {
    let fewest = open.iter().min().copied().unwrap_or(0);
    let has_room = |&n: &usize| percent[n] < BUSY_PERCENT && open[n] < fewest + MOST_AHEAD;
    (0..open.len()).find(has_room).or_else(|| (0..open.len()).min_by_key(|&n| (percent[n], open[n]))).unwrap_or(0)
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

/// Starts a task that many connections share: beside the lanes, whoever starts it.
pub fn spawn_shared<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    BESIDE.with(|beside| match beside.get() {
        Some(beside) => beside.spawn(task),
        None => tokio::spawn(task),
    })
}

thread_local! {
    /// On the threads of lanes: the runtime that is none.
    static BESIDE: OnceCell<Handle> = const { OnceCell::new() };
}

fn lane(n: usize, stop: CancellationToken) -> io::Result<Lane> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (lane, home) = (runtime.handle().clone(), Handle::current());
    std::thread::Builder::new().name(format!("lane-{n}")).spawn(move || {
        BESIDE.with(|beside| _ = beside.set(home));
        runtime.block_on(stop.cancelled());
    })?;
    Ok(Lane { runtime: lane, open: Arc::default() })
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
const BUSY_PERCENT: u32 = 50;
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
            socket.write_all(name().as_bytes()).await.unwrap();
        });
        let mut name = String::new();
        client.read_to_string(&mut name).await.unwrap();
        tasks.close();
        tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await.expect("counted to its end");
        name
    }

    #[test]
    fn the_first_lane_that_has_room_is_filled_and_none_gets_far_ahead() {
        assert_eq!(choose(&[0, 0, 0], &[900, 0, 0]), 0);
        assert_eq!(choose(&[60, 10, 0], &[10, 3, 0]), 1);
        assert_eq!(choose(&[0, 0], &[1_030, 6]), 1);
        assert_eq!(choose(&[90, 70, 80], &[1, 1, 1]), 1, "all busy: the least");
        assert_eq!(choose(&[90, 20], &[0, 1_024]), 1, "all busy or ahead: the least busy");
    }

    #[test]
    fn a_lane_is_as_busy_as_it_was_since_the_last_look() {
        let (at, ms) = (Instant::now(), Duration::from_millis);
        let mut gauge = Gauge { at, busy: vec![ms(1_000), ms(0)], percent: vec![0, 0] };
        gauge.look(at + ms(200), vec![ms(1_050), ms(300)]);
        assert_eq!(gauge.percent, [25, 100]);
        gauge.look(at + ms(400), vec![ms(1_050), ms(300)]);
        assert_eq!(gauge.percent, [0, 0]);
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
