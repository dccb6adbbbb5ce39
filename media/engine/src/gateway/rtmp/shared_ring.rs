//! The ring of one stream, shared by the task that packs frames and the links that play them.
//!
//! Must not know the fan-out or its players.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ring::Ring;

/// A ring behind a lock.
#[derive(Debug)]
pub(super) struct SharedRing(Mutex<Ring>);

impl SharedRing {
    pub(super) fn new(ring: Ring) -> Self {
        Self(Mutex::new(ring))
    }

    /// Locks the ring; hold it briefly. Lock order: a link's lock before the ring's.
    pub(super) fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
