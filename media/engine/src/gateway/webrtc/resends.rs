//! How many packets one viewer may get again: one that asks for more would flood its link, and take the others' time.
//!
//! A plain value: a bucket that fills with time.

use std::time::{Duration, Instant};

/// Packets within a moment: more than a key frame has.
const BURST: u32 = 400;
/// Time in which one more is earned: 500 a second are 5 Mbit/s.
const EVERY: Duration = Duration::from_millis(2);

/// What is left of it.
#[derive(Debug)]
pub(super) struct Resends {
    left: u32,
    at: Instant,
}

impl Resends {
    /// Full.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// So many, now.
    pub(super) fn left(&mut self, now: Instant) -> u32 {
        let earned = now.saturating_duration_since(self.at).as_millis() / EVERY.as_millis();
        if earned > 0 {
            self.left = BURST.min(self.left + earned.min(u128::from(BURST)) as u32);
            self.at = now;
        }
        self.left
    }

    /// So many were sent.
    pub(super) fn spend(&mut self, packets: u32) {
        self.left = self.left.saturating_sub(packets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_all_gets_a_burst_and_then_what_time_brings() {
        let begin = Instant::now();
        let mut resends = Resends::new(begin);
        assert_eq!(resends.left(begin), 400);
        resends.spend(400);
        assert_eq!(resends.left(begin + Duration::from_millis(1)), 0);
        assert_eq!(resends.left(begin + Duration::from_millis(20)), 10);
        resends.spend(10);
        assert_eq!(resends.left(begin + Duration::from_millis(20)), 0);
        assert_eq!(resends.left(begin + Duration::from_secs(60)), 400);
    }
}
