//! The pulled streams that have a source, with the distance to the publisher: only these are served
//! to other edges.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_api::StreamName;

/// Connections between the publisher's node and the last edge.
pub(super) const MAX_HOPS: u8 = 3;

/// Hops by stream; clones share the map.
#[derive(Debug, Clone, Default)]
pub(super) struct Upstreams(Arc<Mutex<HashMap<StreamName, u8>>>);

impl Upstreams {
    pub(super) fn set(&self, name: &StreamName, hops: u8) {
        self.lock().insert(name.clone(), hops);
    }

    pub(super) fn remove(&self, name: &StreamName) {
        self.lock().remove(name);
    }

    /// Hops to the publisher's node; `None` if the stream has no source.
    pub(super) fn hops(&self, name: &StreamName) -> Option<u8> {
        self.lock().get(name).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
