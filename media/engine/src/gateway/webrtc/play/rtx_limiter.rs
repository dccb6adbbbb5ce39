//! Limits the retransmissions to one viewer: a viewer that requests more would flood its own link
//! and take the worker's time from other viewers.
//!
//! A plain value: a token bucket, refilled with time.

use std::time::{Duration, Instant};

/// Capacity of the bucket, in packets: more than a key frame has.
const BURST: u32 = 400;
/// Interval after which one token is added: 500 packets per second are 5 Mbit/s.
const EVERY: Duration = Duration::from_millis(2);

/// A token bucket, in packets.
#[derive(Debug)]
pub(crate) struct Resends {
    left: u32,
    at: Instant,
}

impl Resends {
    /// Creates a full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// Refills the bucket and returns the number of packets that may be retransmitted at `now`.
    pub(crate) fn left(&mut self, now: Instant) -> u32 {
        let earned = now.saturating_duration_since(self.at).as_millis() / EVERY.as_millis();
        if earned > 0 {
            self.left = BURST.min(self.left + earned.min(u128::from(BURST)) as u32);
            self.at = now;
        }
        self.left
    }

    /// Removes the tokens of `packets` sent packets.
    pub(crate) fn spend(&mut self, packets: u32) {
        self.left = self.left.saturating_sub(packets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limiter_allows_one_burst_and_then_refills_with_time() {
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
