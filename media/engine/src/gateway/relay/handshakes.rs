//! Connections whose peer has not yet proved that it knows the cluster secret.
//!
//! They have a small pool of their own, so that strangers take no place from edges. If it is full,
//! the oldest one is closed: a peer with the secret needs a few milliseconds, and the one that has
//! waited longest is the least likely to be one. Must not know the protocol.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Maximum number of handshakes at a time. Edges that reconnect after an outage need more than a
/// few.
pub(super) const MAX_HANDSHAKES: usize = 128;

/// The handshakes in progress, oldest first; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct HandshakePool(Arc<Mutex<Pending>>);

#[derive(Debug, Default)]
struct Pending {
    oldest_first: VecDeque<(u64, CancellationToken)>,
    next_id: u64,
}

/// One handshake in progress; dropping it leaves the pool.
#[derive(Debug)]
pub(super) struct PendingHandshake {
    pool: HandshakePool,
    id: u64,
    replaced: CancellationToken,
}

impl HandshakePool {
    /// Adds a handshake; replaces the oldest one if the pool is full.
    pub(super) fn begin(&self) -> PendingHandshake {
        let mut pending = self.lock();
        if pending.oldest_first.len() >= MAX_HANDSHAKES
            && let Some((_, replaced)) = pending.oldest_first.pop_front()
        {
            replaced.cancel();
        }
        let (id, replaced) = (pending.next_id, CancellationToken::new());
        pending.next_id += 1;
        pending.oldest_first.push_back((id, replaced.clone()));
        PendingHandshake { pool: self.clone(), id, replaced }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingHandshake {
    /// Waits until a newer handshake has replaced this one.
    pub(super) async fn wait_until_replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for PendingHandshake {
    fn drop(&mut self) {
        // A full pool has few entries.
        self.pool.lock().oldest_first.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_pool_replaces_the_oldest_handshake() {
        let pool = HandshakePool::default();
        let mut all: Vec<_> = (0..MAX_HANDSHAKES).map(|_| pool.begin()).collect();
        drop(all.remove(0));
        let newest = [pool.begin(), pool.begin()];
        let replaced = |handshake: &PendingHandshake| handshake.replaced.is_cancelled();
        assert_eq!(all.iter().position(replaced), Some(0));
        assert_eq!(all.iter().chain(&newest).filter(|handshake| replaced(handshake)).count(), 1);
        drop((all, newest));
        assert!(pool.lock().oldest_first.is_empty());
    }
}
