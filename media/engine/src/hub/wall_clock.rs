//! The time of day by which streams are named and numbered: the cluster's, as far as it is known.
//!
//! Segments of a stream are numbered by when it began (`wire::segment::first_number`), so two nodes whose clocks differ would
//! count a stream that moves from one to the other backwards. Whoever knows how wrong this machine's clock is says so here;
//! who is told nothing, such as a node that is alone, goes by its own. Must not know who tells.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock; clones share it.
#[derive(Debug, Clone, Default)]
pub struct WallClock(Arc<Mutex<Option<Anchor>>>);

/// The right time at one moment. What has passed since is measured by a clock that cannot be set: while somebody puts this
/// machine's clock right, what was said of it before is wrong.
#[derive(Debug)]
struct Anchor {
    ahead_ms: i64,
    at: Instant,
    unix_ms: u64,
}

impl WallClock {
    /// This machine's clock is so many milliseconds ahead of the right time; behind if negative, right if 0. May be said again
    /// and again.
    pub fn correct(&self, ahead_ms: i64) {
        self.correct_at(ahead_ms, Instant::now(), own_ms());
    }

    /// Unix time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.at(Instant::now(), own_ms())
    }

    fn correct_at(&self, ahead_ms: i64, now: Instant, own_ms: u64) {
        let mut anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead_ms == 0 {
            *anchor = None;
        } else if anchor.as_ref().is_none_or(|anchor| anchor.ahead_ms != ahead_ms) {
            *anchor =
                Some(Anchor { ahead_ms, at: now, unix_ms: own_ms.saturating_add_signed(ahead_ms.saturating_neg()) });
        }
    }

    fn at(&self, now: Instant, own_ms: u64) -> u64 {
        let anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        anchor.as_ref().map_or(own_ms, |anchor| {
            let passed_ms = now.saturating_duration_since(anchor.at).as_millis();
            anchor.unix_ms.saturating_add(u64::try_from(passed_ms).unwrap_or(u64::MAX))
        })
    }
}

fn own_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_known_to_be_wrong_is_put_right_and_stays_so_while_somebody_sets_it() {
        let (clock, start) = (WallClock::default(), Instant::now());
        let (right_ms, hour_ms) = (1_800_000_000_000, 3_600_000);
        let later = |secs: u64| (start + Duration::from_secs(secs), right_ms + 1_000 * secs);
        // Nobody says anything: it is its own.
        assert_eq!(clock.at(start, right_ms), right_ms);
        for (ahead_ms, wrong_ms) in [(hour_ms, right_ms + 3_600_000), (-hour_ms, right_ms - 3_600_000)] {
            clock.correct_at(ahead_ms, start, wrong_ms);
            assert_eq!(clock.at(start, wrong_ms), right_ms);
            // It is set, and nobody has measured it again yet.
            let (now, now_ms) = later(2);
            clock.correct_at(ahead_ms, now, now_ms);
            assert_eq!(clock.at(now, now_ms), now_ms);
        }
        let (now, now_ms) = later(5);
        clock.correct_at(0, now, now_ms);
        assert_eq!(clock.at(now, now_ms + 7), now_ms + 7);
    }
}
