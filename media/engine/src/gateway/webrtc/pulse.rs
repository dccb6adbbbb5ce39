//! The proof of life of one worker: it says when it last came round and how much it has worked, and whoever asks judges.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A worker comes round at least every 100 ms; one that has not for so long hangs.
const PATIENCE: Duration = Duration::from_secs(3);
/// The worker has not begun yet.
const WAITING: u64 = u64::MAX;
/// The worker's thread is over.
const ENDED: u64 = u64::MAX - 1;

/// Shared by a worker and those who ask for it.
#[derive(Debug)]
pub(super) struct Pulse {
    made: Instant,
    /// Milliseconds since `made`, or one of the two above.
    beat: AtomicU64,
    /// Nanoseconds it was not waiting.
    busy_ns: AtomicU64,
}

/// Held by the worker's thread: however that ends, its pulse says so.
#[derive(Debug)]
pub(super) struct Heart(std::sync::Arc<Pulse>);

impl Pulse {
    pub(super) fn new() -> Self {
        Self { made: Instant::now(), beat: AtomicU64::new(WAITING), busy_ns: AtomicU64::new(0) }
    }

    /// Begins to live.
    pub(super) fn start(self: &std::sync::Arc<Self>) -> Heart {
        self.beat(Instant::now());
        Heart(std::sync::Arc::clone(self))
    }

    /// The worker has come round.
    pub(super) fn beat(&self, now: Instant) {
        self.beat.store(now.saturating_duration_since(self.made).as_millis() as u64, Ordering::Relaxed);
    }

    /// The worker has worked so long since it last waited.
    pub(super) fn worked(&self, time: Duration) {
        self.busy_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// How long it has worked since it began.
    pub(super) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }

    /// True once the thread is over: nobody reads its mailbox any more.
    pub(super) fn has_ended(&self) -> bool {
        self.beat.load(Ordering::Relaxed) == ENDED
    }

    /// What is wrong, if anything is.
    pub(super) fn check(&self, now: Instant) -> Result<(), String> {
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
    fn a_worker_is_alive_from_its_first_beat_until_it_hangs_or_ends() {
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
