//! Estimates the number of players. HLS has no sessions, so recent requests for playlists are
//! counted by a hash of their sender.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Times of the last playlist requests, by viewer.
#[derive(Debug, Default)]
pub(super) struct Viewers(HashMap<u64, Instant>);

impl Viewers {
    /// Records a playlist request of `viewer`.
    pub(super) fn record(&mut self, viewer: u64, now: Instant) {
        if self.0.len() < MAX_VIEWERS || self.0.contains_key(&viewer) {
            self.0.insert(viewer, now);
        }
    }

    /// True if `viewer` is counted.
    pub(super) fn contains(&self, viewer: u64) -> bool {
        self.0.contains_key(&viewer)
    }

    /// Number of viewers within [`ACTIVE_WINDOW`]; removes the others.
    pub(super) fn count(&mut self, now: Instant) -> u64 {
        self.0.retain(|_, seen| now.duration_since(*seen) < ACTIVE_WINDOW);
        self.0.len() as u64
    }
}

/// A player requests a playlist at least every target duration, and longer ones are rare.
const ACTIVE_WINDOW: Duration = Duration::from_secs(10);
/// Further viewers are not counted: forged requests must not grow the map without limit.
const MAX_VIEWERS: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewer_counts_once_and_for_ten_seconds() {
        let (mut viewers, start) = (Viewers::default(), Instant::now());
        viewers.record(1, start);
        viewers.record(2, start);
        viewers.record(2, start + Duration::from_secs(5));
        assert_eq!(viewers.count(start + Duration::from_millis(9_999)), 2);
        assert_eq!(viewers.count(start + ACTIVE_WINDOW), 1);
        assert_eq!(viewers.count(start + Duration::from_secs(15)), 0);
    }

    #[test]
    fn number_of_counted_viewers_is_bounded() {
        let (mut viewers, now) = (Viewers::default(), Instant::now());
        (0..60_000).for_each(|viewer| viewers.record(viewer, now));
        assert_eq!(viewers.count(now), MAX_VIEWERS as u64);
    }
}
