//! Estimates how many players watch: HLS has no sessions, only addresses that keep asking for playlists.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Who asked for a playlist lately.
#[derive(Debug, Default)]
pub(super) struct Viewers(HashMap<u64, Instant>);

impl Viewers {
    /// `who` has asked for a playlist.
    pub(super) fn note(&mut self, who: u64, now: Instant) {
        if self.0.len() < MAX_VIEWERS || self.0.contains_key(&who) {
            self.0.insert(who, now);
        }
    }

    /// True if `who` has asked lately.
    pub(super) fn knows(&self, who: u64) -> bool {
        self.0.contains_key(&who)
    }

    /// How many have asked lately; forgets the others.
    pub(super) fn count(&mut self, now: Instant) -> u64 {
        self.0.retain(|_, seen| now.duration_since(*seen) < RECENT);
        self.0.len() as u64
    }
}

/// A player asks at least every target duration; longer segments than this are rare.
const RECENT: Duration = Duration::from_secs(10);
/// More are not counted: the map must not grow with forged addresses.
const MAX_VIEWERS: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_once_and_for_ten_seconds() {
        let (mut viewers, start) = (Viewers::default(), Instant::now());
        viewers.note(1, start);
        viewers.note(2, start);
        viewers.note(2, start + Duration::from_secs(5));
        assert_eq!(viewers.count(start + Duration::from_millis(9_999)), 2);
        assert_eq!(viewers.count(start + RECENT), 1);
        assert_eq!(viewers.count(start + Duration::from_secs(15)), 0);
    }

    #[test]
    fn forged_addresses_do_not_fill_the_memory() {
        let (mut viewers, now) = (Viewers::default(), Instant::now());
        (0..60_000).for_each(|who| viewers.note(who, now));
        assert_eq!(viewers.count(now), MAX_VIEWERS as u64);
    }
}
