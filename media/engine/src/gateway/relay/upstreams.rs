//! Which pulled streams have a source right now, and how far away the publisher is: only those can be passed on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_api::StreamName;

/// Nodes between a publisher's and the last one at most.
pub(super) const MAX_HOPS: u8 = 3;

/// Hops by stream; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Upstreams(Arc<Mutex<HashMap<StreamName, u8>>>);

impl Upstreams {
    pub(super) fn set(&self, name: &StreamName, hops: u8) {
        self.lock().insert(name.clone(), hops);
    }

    pub(super) fn lose(&self, name: &StreamName) {
        self.lock().remove(name);
    }

    /// Of a stream that flows now.
    pub(super) fn hops(&self, name: &StreamName) -> Option<u8> {
        self.lock().get(name).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
