//! The wall clock from which stream generations and segment numbers are derived: the clock of the
//! cluster, as far as its offset is known.
//!
//! Segment numbers derive from the time at which a stream was published
//! (`wire::segment::first_segment_number`). Without a common clock they would go backwards when a
//! stream moves to a node whose clock is behind. The cluster room measures the offset of the
//! system clock and sets it here; without a measurement, as on a standalone node, the system
//! clock is used. Must not know how the offset is measured.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A wall clock with an adjustable offset; clones share it.
#[derive(Debug, Clone, Default)]
pub struct WallClock(Arc<Mutex<Option<Correction>>>);

/// The correct time at one instant. Time since then is measured with the monotonic clock, because
/// an adjustment of the system clock would invalidate the measured offset.
#[derive(Debug)]
struct Correction {
    offset_ms: i64,
    at: Instant,
    unix_ms: u64,
}

impl WallClock {
    /// Sets the number of milliseconds by which the system clock is ahead of the correct time;
    /// negative if it is behind. May be called repeatedly.
    pub fn correct(&self, offset_ms: i64) {
        self.correct_at(offset_ms, Instant::now(), system_ms());
    }

    /// Returns the corrected Unix time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms_at(Instant::now(), system_ms())
    }

    fn correct_at(&self, offset_ms: i64, now: Instant, system_ms: u64) {
        let mut correction = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if offset_ms == 0 {
            *correction = None;
        } else if correction.as_ref().is_none_or(|c| c.offset_ms != offset_ms) {
            *correction = Some(Correction {
                offset_ms,
                at: now,
                unix_ms: system_ms.saturating_add_signed(offset_ms.saturating_neg()),
            });
        }
    }

    fn now_ms_at(&self, now: Instant, system_ms: u64) -> u64 {
        let correction = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        correction.as_ref().map_or(system_ms, |correction| {
            let passed_ms = now.saturating_duration_since(correction.at).as_millis();
            correction.unix_ms.saturating_add(u64::try_from(passed_ms).unwrap_or(u64::MAX))
        })
    }
}

fn system_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn corrected_clock_stays_correct_while_the_system_clock_is_adjusted() {
        let (clock, start) = (WallClock::default(), Instant::now());
        let (correct_ms, hour_ms) = (1_800_000_000_000, 3_600_000);
        let later = |secs: u64| (start + Duration::from_secs(secs), correct_ms + 1_000 * secs);
        // Without a correction, it follows the system clock.
        assert_eq!(clock.now_ms_at(start, correct_ms), correct_ms);
        for (offset_ms, wrong_ms) in [(hour_ms, correct_ms + 3_600_000), (-hour_ms, correct_ms - 3_600_000)] {
            clock.correct_at(offset_ms, start, wrong_ms);
            assert_eq!(clock.now_ms_at(start, wrong_ms), correct_ms);
            // The system clock was adjusted, and its offset has not been measured again yet.
            let (now, now_ms) = later(2);
            clock.correct_at(offset_ms, now, now_ms);
            assert_eq!(clock.now_ms_at(now, now_ms), now_ms);
        }
        let (now, now_ms) = later(5);
        clock.correct_at(0, now, now_ms);
        assert_eq!(clock.now_ms_at(now, now_ms + 7), now_ms + 7);
    }
}
