//! The registry's answers to lookups of streams, and the evidence about their owners: whether media
//! arrives, and for how long probes have been unanswered.
//!
//! A value with a clock. Must not know the registry or the relay's connections.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::documents::{NodeIncarnation, StreamRecord};
use tokio::time::Instant;

use crate::gateway::relay::Ownership;

/// The registry's answers, by stream.
#[derive(Debug, Default)]
pub(super) struct LookupCache(Mutex<HashMap<StreamName, CachedLookup>>);

/// One answer, and how far it can be trusted.
#[derive(Debug, Clone)]
pub(super) struct CachedLookup {
    /// `None` if no node owned the stream.
    pub(super) record: Option<StreamRecord>,
    fetched_at: Instant,
    invalidated: bool,
    /// When media last arrived from the owner.
    last_media_at: Option<Instant>,
    unanswered: Option<UnansweredProbes>,
}

/// Consecutive probes of an owner without an answer.
#[derive(Debug, Clone, Copy)]
struct UnansweredProbes {
    first: Instant,
    last: Instant,
}

impl CachedLookup {
    fn is_usable(&self) -> bool {
        self.last_media_at.unwrap_or(self.fetched_at).max(self.fetched_at).elapsed() < MAX_STALE_AGE
    }
}

impl LookupCache {
    /// The last answer, if it may be used without a new query.
    pub(super) fn fresh(&self, name: &StreamName) -> Option<CachedLookup> {
        self.lock().get(name).filter(|a| !a.invalidated && a.fetched_at.elapsed() < MAX_FRESH_AGE).cloned()
    }

    /// The last answer, if it named an owner and is not too old.
    pub(super) fn stale(&self, name: &StreamName) -> Option<StreamRecord> {
        self.lock().get(name).filter(|a| a.is_usable()).and_then(|a| a.record.clone())
    }

    pub(super) fn insert(&self, name: &StreamName, record: Option<StreamRecord>) {
        let mut answers = self.lock();
        if answers.len() >= MAX_ANSWERS && !answers.contains_key(name) {
            answers.retain(|_, a| a.record.is_some() && a.is_usable());
            if answers.len() >= MAX_ANSWERS {
                answers.clear();
            }
        }
        let answer = CachedLookup {
            record,
            fetched_at: Instant::now(),
            invalidated: false,
            last_media_at: None,
            unanswered: None,
        };
        answers.insert(name.clone(), answer);
    }

    pub(super) fn remove(&self, name: &StreamName) {
        self.lock().remove(name);
    }

    /// Marks the answer as outdated: the next lookup queries the registry.
    pub(super) fn invalidate(&self, name: &StreamName) {
        if let Some(answer) = self.lock().get_mut(name) {
            answer.invalidated = true;
        }
    }

    /// Records that media has just arrived from the owner.
    pub(super) fn confirm(&self, name: &StreamName) {
        if let Some(answer) = self.lock().get_mut(name) {
            answer.last_media_at = Some(Instant::now());
        }
    }

    /// The last known record of the stream, if another node than `this_node` owned it.
    pub(super) fn last_known_owner(&self, name: &StreamName, this_node: &NodeIncarnation) -> Option<StreamRecord> {
        self.stale(name).filter(|record| record.claim.owner.node != this_node.node)
    }

    /// Records the result of probing the owner of a known stream, and returns for how long its
    /// probes have been unanswered.
    pub(super) fn on_probe_result(&self, name: &StreamName, ownership: Ownership) -> Duration {
        let mut answers = self.lock();
        let Some(answer) = answers.get_mut(name) else { return Duration::ZERO };
        let now = Instant::now();
        // An owner whose media arrives still has the stream, even if it does not answer probes.
        let media_arrives = answer.last_media_at.is_some_and(|at| now.duration_since(at) < MEDIA_TIMEOUT);
        let previous = answer.unanswered.filter(|probes| now.duration_since(probes.last) < MAX_PROBE_GAP);
        let is_unanswered = ownership == Ownership::NoAnswer && !media_arrives;
        answer.unanswered =
            is_unanswered.then(|| UnansweredProbes { first: previous.map_or(now, |probes| probes.first), last: now });
        answer.unanswered.map_or(Duration::ZERO, |probes| now.duration_since(probes.first))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, CachedLookup>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer is used for this duration without a new query.
const MAX_FRESH_AGE: Duration = Duration::from_secs(1);
/// While the registry is unreachable, an answer is used for this duration.
const MAX_STALE_AGE: Duration = Duration::from_secs(60 * 60);
/// An owner whose media was confirmed this recently still has the stream; equals the relay's
/// `silence_timeout`.
const MEDIA_TIMEOUT: Duration = Duration::from_secs(3);
/// If two probes are further apart, the time between them does not count as unanswered. Encoders
/// that are refused retry within half of this.
const MAX_PROBE_GAP: Duration = Duration::from_secs(60);
/// Names come from the network, so the map is bounded.
const MAX_ANSWERS: usize = 10_000;
