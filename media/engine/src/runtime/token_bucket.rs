//! Token buckets, which limit the rate of attempts.
//!
//! A bucket holds at most `burst` tokens and gets one more per `refill_interval`. An attempt takes
//! a token. Must not know what an attempt is.

use std::time::{Duration, Instant};

/// Size of a bucket, and the time in which one token is added.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Maximum number of tokens.
    pub burst: f64,
    /// Time in which one token is added.
    pub refill_interval: Duration,
}

/// A number of tokens that grows with time.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    limit: Limit,
    /// Negative while attempts wait for their token.
    tokens: f64,
    refilled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn full(limit: Limit, now: Instant) -> Self {
        Self { limit, tokens: limit.burst, refilled_at: now }
    }

    /// Adds the tokens of the time since the last call.
    pub fn refill(&mut self, now: Instant) {
        let more =
            now.saturating_duration_since(self.refilled_at).as_secs_f64() / self.limit.refill_interval.as_secs_f64();
        self.tokens = (self.tokens + more).min(self.limit.burst);
        self.refilled_at = now;
    }

    /// Time until a token taken now is there; zero if there is one.
    pub fn delay(&self) -> Duration {
        self.limit.refill_interval.mul_f64((1.0 - self.tokens).max(0.0))
    }

    /// Takes a token, also one that is not there yet.
    pub fn take(&mut self) {
        self.tokens -= 1.0;
    }

    /// Returns a token that was taken.
    pub fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.limit.burst);
    }

    /// Number of tokens that are missing from a full bucket.
    pub fn missing(&self) -> f64 {
        self.limit.burst - self.tokens
    }

    /// True if no token is missing.
    pub fn is_full(&self) -> bool {
        self.tokens >= self.limit.burst
    }
}
