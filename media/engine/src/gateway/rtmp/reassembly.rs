//! The memory of unfinished messages, summed over all connections.
//!
//! A message may have up to 16 MiB, and a peer decides how slowly it arrives. The chunk reader
//! limits what one connection can hold; this limits what all of them can. While the total is above
//! [`MAX_TOTAL_BYTES`], a connection with more than [`EXEMPT_BYTES`] is closed: ordinary
//! publishers, whose messages are shorter, continue. Must not know what the messages contain.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The total; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct ReassemblyBudget(Arc<AtomicUsize>);

/// What one connection holds of the total, until it is dropped.
#[derive(Debug)]
pub(super) struct ReassemblyShare {
    budget: ReassemblyBudget,
    bytes: usize,
}

impl ReassemblyBudget {
    pub(super) fn share(&self) -> ReassemblyShare {
        ReassemblyShare { budget: self.clone(), bytes: 0 }
    }
}

impl ReassemblyShare {
    /// Sets the bytes that the connection holds now. False if it must be closed.
    pub(super) fn set_bytes(&mut self, bytes: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        let before = self.budget.0.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        let total = before.wrapping_add(bytes.wrapping_sub(self.bytes));
        self.bytes = bytes;
        total <= MAX_TOTAL_BYTES || bytes <= EXEMPT_BYTES
    }
}

impl Drop for ReassemblyShare {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Sixteen messages of the maximum length at the same time.
const MAX_TOTAL_BYTES: usize = 256 << 20;
/// The key frame of a stream of 2 Mbit/s has about 100 kB.
const EXEMPT_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_with_long_messages_are_closed_above_the_total() {
        let budget = ReassemblyBudget::default();
        let mut long: Vec<_> = (0..16).map(|_| budget.share()).collect();
        assert!(long.iter_mut().all(|share| share.set_bytes(MAX_TOTAL_BYTES / 16)), "the total is not exceeded");
        let (mut short, mut another_long) = (budget.share(), budget.share());
        assert!(short.set_bytes(EXEMPT_BYTES));
        assert!(!another_long.set_bytes(EXEMPT_BYTES + 1));
        assert!(short.set_bytes(0));
        drop((another_long, long.pop()));
        assert!(budget.share().set_bytes(MAX_TOTAL_BYTES / 16));
        drop((short, long));
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}
