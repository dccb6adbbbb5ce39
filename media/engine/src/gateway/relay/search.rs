//! The search of a pull for a source: how often, how long, and with which pauses.
//!
//! Must not know connections.

use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::relay::resolver::StreamLocation;

/// Progress of the search for a source.
#[derive(Debug)]
pub(super) struct Search {
    timeout: Duration,
    /// When the search began; set by the first failure.
    since: Option<Instant>,
    pub(super) tries: u32,
    /// The last source has the stream, but accepts no more edges.
    pub(super) source_is_full: bool,
    /// Nodes that do not have the stream, although they should.
    pub(super) refused_by: Option<StreamLocation>,
}

impl Search {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, since: None, tries: 0, source_is_full: false, refused_by: None }
    }

    pub(super) fn has_timed_out(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() >= self.timeout
    }

    /// At most 50 ms at first, then doubling from 100 ms to 1 s with a jitter of half: all edges of
    /// an origin lose it at the same time.
    pub(super) fn retry_delay(&self) -> Duration {
        if self.source_is_full {
            // Slots become free one by one, and every waiting edge retries.
            return Duration::from_millis(rand::random_range(MAX_RETRY_DELAY_MS / 2..MAX_RETRY_DELAY_MS * 3 / 2));
        }
        if self.tries <= 1 {
            return Duration::from_millis(rand::random_range(0..FIRST_RETRY_DELAY_MS / 2));
        }
        let delay_ms = (FIRST_RETRY_DELAY_MS << (self.tries - 2).min(8)).min(MAX_RETRY_DELAY_MS);
        Duration::from_millis(rand::random_range(delay_ms / 2..delay_ms * 3 / 2))
    }
}

const FIRST_RETRY_DELAY_MS: u64 = 100;
const MAX_RETRY_DELAY_MS: u64 = 1_000;
