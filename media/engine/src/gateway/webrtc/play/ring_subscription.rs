//! Notifies a worker that a packet ring has new packets or has ended.
//!
//! Packetizers notify, the worker takes the ids. Must not know sessions or commands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::gateway::webrtc::transport::udp::Wakeup;

/// The packetizers that have updates for one worker.
#[derive(Debug)]
pub(crate) struct RingUpdates {
    /// Each id at most once, because of [`RingSubscription::notified`].
    packetizer_ids: Mutex<Vec<u64>>,
    wakeup: Arc<Wakeup>,
}

impl RingUpdates {
    pub(crate) fn new(wakeup: Arc<Wakeup>) -> Self {
        Self { packetizer_ids: Mutex::default(), wakeup }
    }

    /// Removes and returns the ids of the updated packetizers. Does not wait.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.packetizer_ids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, packetizer_id: u64) {
        self.packetizer_ids.lock().unwrap_or_else(PoisonError::into_inner).push(packetizer_id);
        self.wakeup.wake();
    }
}

/// A worker's subscription to the packet ring of one packetizer. Coalesces notifications.
#[derive(Debug)]
pub(crate) struct RingSubscription {
    updates: Arc<RingUpdates>,
    packetizer_id: u64,
    notified: AtomicBool,
}

impl RingSubscription {
    pub(crate) fn new(updates: Arc<RingUpdates>, packetizer_id: u64) -> Self {
        Self { updates, packetizer_id, notified: AtomicBool::new(false) }
    }

    /// Notifies the worker, unless a notification is already pending.
    pub(crate) fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            self.updates.push(self.packetizer_id);
        }
    }

    /// Clears the pending notification. The worker calls this before it reads the ring.
    pub(crate) fn acknowledge(&self) {
        self.notified.store(false, Ordering::Release);
    }
}
