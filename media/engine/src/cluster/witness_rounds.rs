//! When witnesses were last asked about a stream: hostile publishers may try to take a live name in
//! a loop.
//!
//! A value without a clock. Must not know who the witnesses are.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_api::StreamName;
use tokio::time::Instant;

/// Witnesses are asked about a stream for one publisher within this duration; another one is
/// refused.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);

/// When witnesses were last asked about a stream.
#[derive(Debug, Default)]
pub(super) struct WitnessRounds(Mutex<HashMap<StreamName, Instant>>);

impl WitnessRounds {
    /// Returns false if a round about this stream began less than [`ROUND_INTERVAL`] ago.
    pub(super) fn begin(&self, name: &StreamName, now: Instant) -> bool {
        let mut begun = self.lock();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < ROUND_INTERVAL;
        if begun.get(name).is_some_and(is_recent) {
            return false;
        }
        if begun.len() >= MAX_NAMES {
            begun.retain(|_, at| is_recent(at));
        }
        // Without room, nobody is asked.
        let has_room = begun.len() < MAX_NAMES;
        if has_room {
            begun.insert(name.clone(), now);
        }
        has_room
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names come from the network, so the map is bounded.
const MAX_NAMES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn witnesses_are_asked_once_per_second_and_name_for_a_bounded_number_of_names() {
        let name = |n: usize| StreamName::new("live", &format!("s{n}")).unwrap();
        let (rounds, start) = (WitnessRounds::default(), Instant::now());
        assert!(rounds.begin(&name(0), start));
        assert!(!rounds.begin(&name(0), start + ROUND_INTERVAL - Duration::from_millis(1)));
        assert!(rounds.begin(&name(1), start + ROUND_INTERVAL - Duration::from_millis(1)));
        assert!(rounds.begin(&name(0), start + ROUND_INTERVAL));
        for n in 2..2 * MAX_NAMES {
            assert_eq!(rounds.begin(&name(n), start + ROUND_INTERVAL), n < MAX_NAMES, "{n}");
        }
        assert!(rounds.begin(&name(MAX_NAMES), start + 2 * ROUND_INTERVAL));
    }
}
