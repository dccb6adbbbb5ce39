//! Liveness of one worker thread: when its event loop last ran, and for how long it was busy.
//!
//! The worker writes, health checks and the placement of sessions read. Lock-free.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The event loop runs at least every 100 ms; after this duration without a run it counts as hung.
const PATIENCE: Duration = Duration::from_secs(3);
/// Value of `last_beat` before the thread has started.
const WAITING: u64 = u64::MAX;
/// Value of `last_beat` after the thread has ended.
const ENDED: u64 = u64::MAX - 1;

/// The liveness of one worker, shared with its observers.
#[derive(Debug)]
pub(crate) struct Pulse {
    made: Instant,
    /// Milliseconds since `created`, or [`NOT_STARTED`] or [`ENDED`].
    beat: AtomicU64,
    /// Total time not spent waiting.
    busy_ns: AtomicU64,
}

/// Owned by the worker's thread. Dropping it, also by a panic, marks the worker as ended.
#[derive(Debug)]
pub(crate) struct Heart(std::sync::Arc<Pulse>);

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { made: Instant::now(), beat: AtomicU64::new(WAITING), busy_ns: AtomicU64::new(0) }
    }

    /// Marks the worker as started until the returned guard is dropped.
    pub(crate) fn start(self: &std::sync::Arc<Self>) -> Heart {
        self.beat(Instant::now());
        Heart(std::sync::Arc::clone(self))
    }

    /// Records a run of the event loop.
    pub(crate) fn beat(&self, now: Instant) {
        self.beat.store(now.saturating_duration_since(self.made).as_millis() as u64, Ordering::Relaxed);
    }

    /// Adds the time for which one run of the event loop was busy.
    pub(crate) fn worked(&self, time: Duration) {
        self.busy_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Returns the total busy time since the start.
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }

    /// Returns true once the thread has ended and no longer reads its mailbox.
    pub(crate) fn has_ended(&self) -> bool {
        self.beat.load(Ordering::Relaxed) == ENDED
    }

    /// Checks that the worker has started, has not ended and does not hang.
    ///
    /// # Errors
    /// Returns a predicate for a sentence that begins with the name of the worker.
    pub(crate) fn check(&self, now: Instant) -> Result<(), String> {
        match self.beat.load(Ordering::Relaxed) {
            WAITING => Err("has not begun".to_owned()),
            ENDED => Err("has ended".to_owned()),
            beat => {
                let age = now.saturating_duration_since(self.made).saturating_sub(Duration::from_millis(beat));
                if age > PATIENCE { Err(format!("hangs since {} s", age.as_secs())) } else { Ok(()) }
            }
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.beat.store(ENDED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn worker_is_live_from_its_first_beat_until_it_hangs_or_ends() {
        let pulse = Arc::new(Pulse::new());
        assert_eq!(pulse.check(Instant::now()).unwrap_err(), "has not begun");
        let heart = pulse.start();
        let now = Instant::now();
        pulse.beat(now);
        assert_eq!(pulse.check(now + PATIENCE - Duration::from_millis(2)), Ok(()));
        assert_eq!(pulse.check(now + PATIENCE + Duration::from_millis(2)).unwrap_err(), "hangs since 3 s");
        pulse.beat(now + PATIENCE);
        assert_eq!(pulse.check(now + PATIENCE), Ok(()));
        drop(heart);
        assert_eq!(pulse.check(now + PATIENCE).unwrap_err(), "has ended");
    }
}
