//! Where streams live: the registry's answer, and what it said last when it is away.

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

/// Answers of the registry, by stream.
#[derive(Debug, Default)]
pub(super) struct Lookups(Mutex<HashMap<StreamName, Answer>>);

#[derive(Debug, Clone)]
struct Answer {
    record: Option<StreamRecord>,
    at: Instant,
    doubted: bool,
    /// When frames came from there last, if they ever did.
    flowed: Option<Instant>,
    silence: Option<Silence>,
}

/// Of an owner that was asked.
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

    /// The last answer that named an owner.
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

    /// What was said last of another node that held the stream, and may hold it still.
    pub(super) fn known_owner(&self, name: &StreamName, us: &Life) -> Option<StreamRecord> {
        self.stale(name).filter(|record| record.claim.owner.node != us.node)
    }

    /// Notes what the owner of a known stream has said just now, and gives how long it has been silent.
    pub(super) fn on_word(&self, name: &StreamName, holds: Holds) -> Duration {
        let mut answers = self.lock();
        let Some(answer) = answers.get_mut(name) else { return Duration::ZERO };
        let now = Instant::now();
        // What comes from there, by whatever way, is no silence.
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
        // A stream may be here although the registry knows nothing of it yet.
        if inner.claims.holds(name) {
            return Some(Located::at(inner.identity.relay.clone()));
        }
        let record = match inner.lookups.fresh(name) {
            Some(answer) => answer.record,
            None => self.ask(name).await,
        }?;
        if record.claim.owner.node == inner.identity.life.node {
            // It was ours, in this life or an earlier one, and is not here any more.
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
                log::debug!(stream = name.as_str(), err:% = Chain(&e); "registry does not say where a stream is");
                self.0.lookups.stale(name)
            }
            Err(_) => self.0.lookups.stale(name),
        }
    }
}

/// An answer is used again for so long without asking.
const FRESH: Duration = Duration::from_secs(1);
/// While the registry is away, an answer is good for so long.
const STALE: Duration = Duration::from_secs(60 * 60);
/// Frames, or answers to pings, came so lately that the source lives: as long as the relay puts up with silence.
const FLOWS: Duration = Duration::from_secs(3);
/// A silence that was noted longer ago is none: nobody has asked since. Encoders that are refused come back within half of it.
const ATTENTION: Duration = Duration::from_secs(60);
/// A viewer does not wait longer for the registry.
const ASK: Duration = Duration::from_secs(1);
/// Names from the network end up here, so there is a limit.
const MAX_ANSWERS: usize = 10_000;
