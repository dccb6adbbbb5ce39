//! Liveness of one worker thread: when its event loop last ran, and for how long it was busy.
//!
//! The worker writes, health checks and the placement of sessions read. Lock-free.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The event loop runs at least every 100 ms; after this duration without a run it counts as hung.
const HANG_TIMEOUT: Duration = Duration::from_secs(3);
/// Value of `last_beat_ms` before the thread has started.
const NOT_STARTED: u64 = u64::MAX;
/// Value of `last_beat_ms` after the thread has ended.
const ENDED: u64 = u64::MAX - 1;

/// The liveness of one worker, shared with its observers.
#[derive(Debug)]
pub(crate) struct Liveness {
    created: Instant,
    /// Milliseconds since `created`, or [`NOT_STARTED`] or [`ENDED`].
    last_beat_ms: AtomicU64,
    /// Total time not spent waiting.
    busy_ns: AtomicU64,
}

/// Owned by the worker's thread. Dropping it, also by a panic, marks the worker as ended.
#[derive(Debug)]
pub(crate) struct LivenessGuard(std::sync::Arc<Liveness>);

impl Liveness {
    pub(crate) fn new() -> Self {
        Self { created: Instant::now(), last_beat_ms: AtomicU64::new(NOT_STARTED), busy_ns: AtomicU64::new(0) }
    }

    /// Marks the worker as started until the returned guard is dropped.
    pub(crate) fn start(self: &std::sync::Arc<Self>) -> LivenessGuard {
        self.beat(Instant::now());
        LivenessGuard(std::sync::Arc::clone(self))
    }

    /// Records a run of the event loop.
    pub(crate) fn beat(&self, now: Instant) {
        self.last_beat_ms.store(now.saturating_duration_since(self.created).as_millis() as u64, Ordering::Relaxed);
    }

    /// Adds the time for which one run of the event loop was busy.
    pub(crate) fn add_busy_time(&self, elapsed: Duration) {
        self.busy_ns.fetch_add(elapsed.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Returns the total busy time since the start.
    pub(crate) fn busy_time(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }

    /// Returns true once the thread has ended and no longer reads its mailbox.
    pub(crate) fn has_ended(&self) -> bool {
        self.last_beat_ms.load(Ordering::Relaxed) == ENDED
    }

    /// Checks that the worker has started, has not ended and does not hang.
    ///
    /// # Errors
    /// Returns a predicate for a sentence that begins with the name of the worker.
    pub(crate) fn check(&self, now: Instant) -> Result<(), String> {
        match self.last_beat_ms.load(Ordering::Relaxed) {
            NOT_STARTED => Err("has not started".to_owned()),
            ENDED => Err("has ended".to_owned()),
            beat => {
                let age = now.saturating_duration_since(self.created).saturating_sub(Duration::from_millis(beat));
                if age > HANG_TIMEOUT { Err(format!("has not responded for {} s", age.as_secs())) } else { Ok(()) }
            }
        }
    }
}

impl Drop for LivenessGuard {
    fn drop(&mut self) {
        self.0.last_beat_ms.store(ENDED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn worker_is_live_from_its_first_beat_until_it_hangs_or_ends() {
        let liveness = Arc::new(Liveness::new());
        assert_eq!(liveness.check(Instant::now()).unwrap_err(), "has not started");
        let guard = liveness.start();
        let now = Instant::now();
        liveness.beat(now);
        assert_eq!(liveness.check(now + HANG_TIMEOUT - Duration::from_millis(2)), Ok(()));
        assert_eq!(
            liveness.check(now + HANG_TIMEOUT + Duration::from_millis(2)).unwrap_err(),
            "has not responded for 3 s"
        );
        liveness.beat(now + HANG_TIMEOUT);
        assert_eq!(liveness.check(now + HANG_TIMEOUT), Ok(()));
        drop(guard);
        assert_eq!(liveness.check(now + HANG_TIMEOUT).unwrap_err(), "has ended");
    }
}
