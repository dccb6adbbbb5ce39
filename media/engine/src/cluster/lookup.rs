//! Finds the relays that have a stream: asks the registry, or uses its last answer if it is
//! unreachable.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::error::Chain;
use headwater_api::node::Life;
use headwater_api::stream::StreamRecord;
use headwater_registry::Registry;
use tokio::time::Instant;

use super::member::Cluster;
use crate::gateway::relay::{Holds, Locate, Located, Locating};

/// The registry's answers, by stream.
#[derive(Debug, Default)]
pub(super) struct Lookups(Mutex<HashMap<StreamName, Answer>>);

#[derive(Debug, Clone)]
struct Answer {
    record: Option<StreamRecord>,
    at: Instant,
    doubted: bool,
    /// When media last arrived from the owner.
    flowed: Option<Instant>,
    silence: Option<Silence>,
}

/// Consecutive probes of an owner without an answer.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    last: Instant,
}

impl Answer {
    fn is_kept(&self) -> bool {
        self.flowed.unwrap_or(self.at).max(self.at).elapsed() < STALE
    }
}

impl Lookups {
    fn fresh(&self, name: &StreamName) -> Option<Answer> {
        self.lock().get(name).filter(|a| !a.doubted && a.at.elapsed() < FRESH).cloned()
    }

    /// The last answer, if it named an owner and is not too old.
    fn stale(&self, name: &StreamName) -> Option<StreamRecord> {
        self.lock().get(name).filter(|a| a.is_kept()).and_then(|a| a.record.clone())
    }

    pub(super) fn put(&self, name: &StreamName, record: Option<StreamRecord>) {
        let mut answers = self.lock();
        if answers.len() >= MAX_ANSWERS && !answers.contains_key(name) {
            answers.retain(|_, a| a.record.is_some() && a.is_kept());
            if answers.len() >= MAX_ANSWERS {
                answers.clear();
            }
        }
        let answer = Answer { record, at: Instant::now(), doubted: false, flowed: None, silence: None };
        answers.insert(name.clone(), answer);
    }

    pub(super) fn forget(&self, name: &StreamName) {
        self.lock().remove(name);
    }

    /// The last known record of the stream, if another node than `this_node` owned it.
    pub(super) fn known_owner(&self, name: &StreamName, us: &Life) -> Option<StreamRecord> {
        self.stale(name).filter(|record| record.claim.owner.node != us.node)
    }

    /// Records the result of probing the owner of a known stream, and returns for how long its probes
    /// have been unanswered.
    pub(super) fn on_word(&self, name: &StreamName, holds: Holds) -> Duration {
        let mut answers = self.lock();
        let Some(answer) = answers.get_mut(name) else { return Duration::ZERO };
        let now = Instant::now();
        // An owner whose media arrives is alive, even if it does not answer probes.
        let flows = answer.flowed.is_some_and(|at| now.duration_since(at) < FLOWS);
        let before = answer.silence.filter(|silence| now.duration_since(silence.last) < ATTENTION);
        let silent = holds == Holds::Silent && !flows;
        answer.silence = silent.then(|| Silence { since: before.map_or(now, |silence| silence.since), last: now });
        answer.silence.map_or(Duration::ZERO, |silence| now.duration_since(silence.since))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Locate for Cluster<R> {
    fn locate<'a>(&'a self, name: &'a StreamName) -> Locating<'a> {
        Box::pin(self.find(name))
    }

    fn doubt(&self, name: &StreamName) {
        if let Some(answer) = self.0.lookups.lock().get_mut(name) {
            answer.doubted = true;
        }
        self.0.groups.doubt();
    }

    fn flows(&self, name: &StreamName) {
        if let Some(answer) = self.0.lookups.lock().get_mut(name) {
            answer.flowed = Some(Instant::now());
        }
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    async fn find(&self, name: &StreamName) -> Option<Located> {
        let inner = &self.0;
        // A stream may be published here although the registry does not list it yet.
        if inner.claims.holds(name) {
            return Some(Located::at(inner.identity.relay.clone()));
        }
        let record = match inner.lookups.fresh(name) {
            Some(answer) => answer.record,
            None => self.ask(name).await,
        }?;
        if record.claim.owner.node == inner.identity.life.node {
            // This node owned it, in this or an earlier incarnation, but it is no longer here.
            return None;
        }
        if let Some(relays) = self.tier(name, &record.claim.owner.node).await {
            return Some(Located { relays, beyond: Some(record.offer.relay) });
        }
        Some(Located::at(record.offer.relay))
    }

    async fn ask(&self, name: &StreamName) -> Option<StreamRecord> {
        match tokio::time::timeout(ASK, self.0.registry.stream(name)).await {
            Ok(Ok(record)) => {
                self.0.lookups.put(name, record.clone());
                record
            }
            Ok(Err(e)) => {
                log::debug!(stream = name.as_str(), err:% = Chain(&e); "registry could not look up a stream");
                self.0.lookups.stale(name)
            }
            Err(_) => self.0.lookups.stale(name),
        }
    }
}

/// An answer is used for this duration without a new query.
const FRESH: Duration = Duration::from_secs(1);
/// While the registry is unreachable, an answer is used for this duration.
const STALE: Duration = Duration::from_secs(60 * 60);
/// An owner is alive if its media was confirmed this recently; the relay's `silence_timeout`.
const FLOWS: Duration = Duration::from_secs(3);
/// If two probes are further apart, the time between them does not count as unanswered. Encoders
/// that are refused retry within half of this.
const ATTENTION: Duration = Duration::from_secs(60);
/// For one query of the registry, while a viewer waits.
const ASK: Duration = Duration::from_secs(1);
/// Names come from the network, so the map is bounded.
const MAX_ANSWERS: usize = 10_000;
