//! Decides when a program that has exited is restarted, and when to give up. A value: has no clock
//! and no process.

use std::time::Duration;

/// Counts consecutive failures of a program.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// Consecutive runs that ended early.
    failures: u32,
    /// True once it has served.
    has_served: bool,
}

impl Backoff {
    /// Returns the delay before the next start, or `None` to give up. `served_for` is how long the
    /// last run served; `None` if it never did.
    pub(crate) fn next_delay(&mut self, served: Option<Duration>) -> Option<Duration> {
        self.has_served |= served.is_some();
        if served.is_some_and(|served| served >= STABLE_DURATION) {
            self.failures = 0;
        }
        self.failures += 1;
        let limit = if self.has_served { MAX_FAILURES } else { MAX_INITIAL_STARTS };
        (self.failures < limit).then(|| (MIN_DELAY * 2_u32.saturating_pow(self.failures - 1)).min(MAX_DELAY))
    }
}

/// Short, because viewers wait for a crashed engine.
const MIN_DELAY: Duration = Duration::from_millis(100);
/// Also the delay of a caller that never gives up.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(10);
/// A run of at least this duration resets the count.
const STABLE_DURATION: Duration = Duration::from_secs(60);
/// Maximum number of consecutive early exits, about a minute of them, before the daemon gives up.
const MAX_FAILURES: u32 = 12;
/// Maximum number of starts before it has served. More than one, because the ports of a killed
/// predecessor take a moment to become free.
const MAX_INITIAL_STARTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(waits: &[Option<Duration>]) -> Vec<Option<u128>> {
        waits.iter().map(|w| w.map(|w| w.as_millis())).collect()
    }

    #[test]
    fn engine_that_never_served_is_given_up_within_a_second() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..3).map(|_| backoff.next_delay(None)).collect();
        assert_eq!(ms(&waits), [Some(100), Some(200), None]);
    }

    #[test]
    fn crashing_engine_is_restarted_with_growing_delays_and_then_given_up() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.next_delay(Some(Duration::from_secs(1)))).collect();
        assert_eq!(ms(&waits[..8]), [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000].map(Some));
        assert_eq!(ms(&waits[8..]), [Some(10_000), Some(10_000), Some(10_000), None]);
    }

    #[test]
    fn failure_count_resets_after_a_minute_of_service_and_not_before() {
        let mut backoff = Backoff::default();
        for _ in 0..11 {
            backoff.next_delay(Some(STABLE_DURATION - Duration::from_millis(1)));
        }
        assert_eq!(backoff.next_delay(Some(STABLE_DURATION)), Some(MIN_DELAY));
        assert_eq!(backoff.next_delay(Some(STABLE_DURATION)), Some(MIN_DELAY));
        assert_eq!(backoff.next_delay(None), Some(2 * MIN_DELAY));
    }
}
