//! When to start a program again after it ended by itself, and when to give up. A value: knows no clock and no process.

use std::time::Duration;

/// Counts failed lives.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// Lives in a row that ended early.
    failures: u32,
    /// True once it has served.
    served: bool,
}

impl Backoff {
    /// What to do after a life that served for `served` (`None`: it never did): wait so long and start again, or, if
    /// there is no answer, give up.
    pub(crate) fn after(&mut self, served: Option<Duration>) -> Option<Duration> {
        self.served |= served.is_some();
        if served.is_some_and(|served| served >= STEADY) {
            self.failures = 0;
        }
        self.failures += 1;
        let limit = if self.served { MAX_FAILURES } else { MAX_FIRST_STARTS };
        (self.failures < limit).then(|| (FIRST_WAIT * 2_u32.saturating_pow(self.failures - 1)).min(LONGEST_WAIT))
    }
}

/// Short, because viewers wait for a crashed engine.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// For who never gives up.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A program that served so long was all right: its end starts a new count.
const STEADY: Duration = Duration::from_secs(60);
/// Early ends in a row, about a minute of them, before whoever started the daemon has to look at it.
const MAX_FAILURES: u32 = 12;
/// Starts before it has ever served. A few, because the ports of a killed predecessor take a moment to be free.
const MAX_FIRST_STARTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(waits: &[Option<Duration>]) -> Vec<Option<u128>> {
        waits.iter().map(|w| w.map(|w| w.as_millis())).collect()
    }

    #[test]
    fn a_node_that_never_served_gives_up_within_a_second() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..3).map(|_| backoff.after(None)).collect();
        assert_eq!(ms(&waits), [Some(100), Some(200), None]);
    }

    #[test]
    fn a_crashing_engine_is_started_ever_more_rarely_and_then_no_more() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.after(Some(Duration::from_secs(1)))).collect();
        assert_eq!(ms(&waits[..8]), [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000].map(Some));
        assert_eq!(ms(&waits[8..]), [Some(10_000), Some(10_000), Some(10_000), None]);
    }

    #[test]
    fn an_engine_that_served_a_minute_starts_a_new_count_and_one_that_served_less_does_not() {
        let mut backoff = Backoff::default();
        for _ in 0..11 {
            backoff.after(Some(STEADY - Duration::from_millis(1)));
        }
        assert_eq!(backoff.after(Some(STEADY)), Some(FIRST_WAIT));
        assert_eq!(backoff.after(Some(STEADY)), Some(FIRST_WAIT));
        assert_eq!(backoff.after(None), Some(2 * FIRST_WAIT));
    }
}
