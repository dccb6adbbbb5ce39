//! Limits the retransmissions to one viewer: a viewer that requests more would flood its own link
//! and take the worker's time from other viewers.
//!
//! A plain value: a token bucket, refilled with time.

use std::time::{Duration, Instant};

/// Capacity of the bucket, in packets: more than a key frame has.
const MAX_BURST_PACKETS: u32 = 400;
/// Interval after which one token is added: 500 packets per second are 5 Mbit/s.
const REFILL_INTERVAL: Duration = Duration::from_millis(2);

/// A token bucket, in packets.
#[derive(Debug)]
pub(crate) struct RtxLimiter {
    available: u32,
    refilled_at: Instant,
}

impl RtxLimiter {
    /// Creates a full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { available: MAX_BURST_PACKETS, refilled_at: now }
    }

    /// Refills the bucket and returns the number of packets that may be retransmitted at `now`.
    pub(crate) fn available(&mut self, now: Instant) -> u32 {
        let earned = now.saturating_duration_since(self.refilled_at).as_millis() / REFILL_INTERVAL.as_millis();
        if earned > 0 {
            self.available = MAX_BURST_PACKETS.min(self.available + earned.min(u128::from(MAX_BURST_PACKETS)) as u32);
            self.refilled_at = now;
        }
        self.available
    }

    /// Removes the tokens of `packets` sent packets.
    pub(crate) fn consume(&mut self, packets: u32) {
        self.available = self.available.saturating_sub(packets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limiter_allows_one_burst_and_then_refills_with_time() {
        let begin = Instant::now();
        let mut limiter = RtxLimiter::new(begin);
        assert_eq!(limiter.available(begin), 400);
        limiter.consume(400);
        assert_eq!(limiter.available(begin + Duration::from_millis(1)), 0);
        assert_eq!(limiter.available(begin + Duration::from_millis(20)), 10);
        limiter.consume(10);
        assert_eq!(limiter.available(begin + Duration::from_millis(20)), 0);
        assert_eq!(limiter.available(begin + Duration::from_secs(60)), 400);
    }
}
