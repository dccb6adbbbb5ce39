//! The streams that this node owns, or assumes to own, each with its claim.
//!
//! A plain table. Must not know the registry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use headwater_api::StreamName;
use headwater_api::documents::Claim;

use crate::hub::Stream;

/// Entries by stream name. The entry of a stream that has ended is removed at once.
#[derive(Debug, Default)]
pub(super) struct ClaimTable(Mutex<HashMap<StreamName, ClaimEntry>>);

/// One stream of this node.
#[derive(Debug, Clone)]
pub(super) struct ClaimEntry {
    pub(super) stream: Weak<Stream>,
    pub(super) instance_id: u64,
    /// False while the publisher waits for the registry.
    pub(super) accepted: bool,
    /// `None` until the registry has granted the stream.
    pub(super) claim: Option<Claim>,
}

impl ClaimTable {
    /// True if the stream is published here. False while the publisher may still be refused,
    /// because its viewers would be disconnected with it.
    pub(super) fn is_accepted(&self, name: &StreamName) -> bool {
        self.lock().get(name).is_some_and(|entry| entry.accepted)
    }

    /// Adds a stream whose publisher waits for the registry.
    pub(super) fn insert(&self, stream: &Arc<Stream>) {
        let entry = ClaimEntry {
            stream: Arc::downgrade(stream),
            instance_id: stream.instance_id(),
            accepted: false,
            claim: None,
        };
        self.lock().insert(stream.name().clone(), entry);
    }

    /// Removes the entry of this stream instance, if it is still there.
    pub(super) fn remove(&self, name: &StreamName, instance_id: u64) -> Option<ClaimEntry> {
        let mut entries = self.lock();
        if entries.get(name).is_none_or(|entry| entry.instance_id != instance_id) {
            return None;
        }
        entries.remove(name)
    }

    /// Marks the publisher as accepted.
    pub(super) fn accept(&self, name: &StreamName, instance_id: u64) {
        if let Some(entry) = self.lock().get_mut(name).filter(|entry| entry.instance_id == instance_id) {
            entry.accepted = true;
        }
    }

    /// Stores a claim; returns false if the stream has ended in the meantime.
    pub(super) fn grant(&self, name: &StreamName, instance_id: u64, claim: &Claim) -> bool {
        match self.lock().get_mut(name).filter(|entry| entry.instance_id == instance_id) {
            Some(entry) => {
                entry.claim = Some(claim.clone());
                true
            }
            None => false,
        }
    }

    /// Takes all granted claims, so that a guard that is dropped later does not release them again.
    pub(super) fn take_granted(&self) -> Vec<Claim> {
        self.lock().values_mut().filter_map(|entry| entry.claim.take()).collect()
    }

    /// Returns a copy of all entries.
    pub(super) fn entries(&self) -> Vec<(StreamName, ClaimEntry)> {
        self.lock().iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, ClaimEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
