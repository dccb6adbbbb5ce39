//! Streams that no node had a moment ago: viewers who ask again cost no connection.
//!
//! A value without a clock. Names come from the network, so their number is bounded.

use std::collections::HashMap;
use std::time::Duration;

use headwater_api::StreamName;
use tokio::time::Instant;

use crate::hub::FindError;

/// A failed look-up is not repeated for this duration. A stream that starts is found at most this
/// much later.
pub(super) const MAX_AGE: Duration = Duration::from_secs(1);
const MAX_NAMES: usize = 10_000;

/// The results of failed look-ups, by stream.
#[derive(Debug, Default)]
pub(super) struct FailedLookups(HashMap<StreamName, (FindError, Instant)>);

impl FailedLookups {
    /// The result of a look-up that failed a moment ago.
    pub(super) fn get(&self, name: &StreamName, now: Instant) -> Option<FindError> {
        self.0.get(name).filter(|(_, at)| is_recent(*at, now)).map(|(error, _)| *error)
    }

    /// Stores the result of a look-up.
    pub(super) fn insert(&mut self, name: StreamName, error: FindError, now: Instant) {
        if self.0.len() >= MAX_NAMES {
            self.0.retain(|_, (_, at)| is_recent(*at, now));
            if self.0.len() >= MAX_NAMES {
                self.0.clear();
            }
        }
        self.0.insert(name, (error, now));
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < MAX_AGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_lookup_is_remembered_for_a_second_and_their_number_is_bounded() {
        let name = |n: usize| StreamName::new("live", &format!("s{n}")).unwrap();
        let (mut failed, start) = (FailedLookups::default(), Instant::now());
        failed.insert(name(0), FindError::Unreachable, start);
        assert_eq!(failed.get(&name(0), start + MAX_AGE / 2), Some(FindError::Unreachable));
        assert_eq!(failed.get(&name(0), start + MAX_AGE), None);
        assert_eq!(failed.get(&name(1), start), None);
        for n in 0..3 * MAX_NAMES {
            failed.insert(name(n), FindError::NotPublished, start);
            assert!(failed.0.len() <= MAX_NAMES);
        }
    }
}
