//! One remote address of a peer: whether it is proven, and how much may be sent to it before.
//!
//! ```text
//!   unproven --own check answered, handshake completed--> proven, as long as answers arrive
//! ```
//!
//! A valid check proves only that its sender knows the credentials; its source address may be
//! forged. A plain value. Must not know which address is selected.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::gateway::webrtc::transport::udp::AddressPair;

/// An unproven address gets at most this many times the bytes that came from it, as in QUIC
/// (RFC 9000 §8.1).
const MAX_AMPLIFICATION: usize = 3;
/// Number of the node's own checks whose answers are accepted: those of the last seconds.
const MAX_PENDING_CHECKS: usize = 8;
/// An address that has answered nothing for this duration gets no media and is not selected.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// A remote address from which an authenticated check came.
#[derive(Debug)]
pub(super) struct RemoteAddress {
    /// The addresses of the newest check.
    pub(super) pair: AddressPair,
    /// Increases with every nomination (USE-CANDIDATE) of the peer; 0 if it never nominated this
    /// address.
    pub(super) nomination: u64,
    received_bytes: usize,
    sent_bytes: usize,
    /// Transaction ids of the node's own checks of this address, newest last.
    pending_checks: VecDeque<[u8; 12]>,
    /// When the address was last proven.
    answered_at: Option<Instant>,
}

impl RemoteAddress {
    pub(super) fn new(pair: AddressPair) -> Self {
        Self {
            pair,
            nomination: 0,
            received_bytes: 0,
            sent_bytes: 0,
            pending_checks: VecDeque::new(),
            answered_at: None,
        }
    }

    /// Returns true if the address was ever proven.
    pub(super) fn was_proven(&self) -> bool {
        self.answered_at.is_some()
    }

    /// Returns true if the address is proven and still answers.
    pub(super) fn is_proven(&self, now: Instant) -> bool {
        self.answered_at.is_some_and(|at| now.saturating_duration_since(at) <= ANSWER_TIMEOUT)
    }

    /// Records that what is sent to this address arrives there.
    pub(super) fn prove(&mut self, now: Instant) {
        self.answered_at = Some(now);
    }

    /// Counts a datagram that came from this address.
    pub(super) fn on_received(&mut self, bytes: usize) {
        self.received_bytes = self.received_bytes.saturating_add(bytes);
    }

    /// Returns whether a datagram of this length may be sent now, and counts it if so.
    pub(super) fn try_send(&mut self, bytes: usize) -> bool {
        let sent_bytes = self.sent_bytes.saturating_add(bytes);
        let allowed = self.was_proven() || sent_bytes <= self.received_bytes.saturating_mul(MAX_AMPLIFICATION);
        if allowed {
            self.sent_bytes = sent_bytes;
        }
        allowed
    }

    /// Records a check that was sent to this address. The oldest one beyond the limit is forgotten.
    pub(super) fn add_pending_check(&mut self, transaction: [u8; 12]) {
        if self.pending_checks.len() == MAX_PENDING_CHECKS {
            self.pending_checks.pop_front();
        }
        self.pending_checks.push_back(transaction);
    }

    /// Returns true if a check with this transaction id was sent to this address and not answered.
    pub(super) fn is_pending(&self, transaction: [u8; 12]) -> bool {
        self.pending_checks.contains(&transaction)
    }

    /// Forgets a check, so that its answer counts once.
    pub(super) fn remove_pending_check(&mut self, transaction: [u8; 12]) {
        self.pending_checks.retain(|pending| *pending != transaction);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> RemoteAddress {
        RemoteAddress::new(AddressPair::to(([127, 0, 0, 1], 1).into()))
    }

    #[test]
    fn unproven_address_gets_at_most_three_times_the_bytes_that_it_sent() {
        let mut address = address();
        assert!(!address.try_send(1));
        address.on_received(96);
        assert!(address.try_send(200));
        assert!(!address.try_send(89));
        assert!(address.try_send(88));
        assert!(!address.try_send(1));
        address.prove(Instant::now());
        assert!(address.try_send(1_000_000));
    }

    #[test]
    fn proof_expires_six_seconds_after_the_last_answer() {
        let (mut address, now) = (address(), Instant::now());
        assert!(!address.is_proven(now));
        address.prove(now);
        assert!(address.is_proven(now + ANSWER_TIMEOUT));
        assert!(!address.is_proven(now + ANSWER_TIMEOUT + Duration::from_millis(1)));
    }

    #[test]
    fn answer_to_a_recent_check_counts_once() {
        let mut address = address();
        for n in 0..=MAX_PENDING_CHECKS as u8 {
            address.add_pending_check([n; 12]);
        }
        assert!(!address.is_pending([0; 12]), "the oldest is forgotten");
        assert!(address.is_pending([1; 12]));
        address.remove_pending_check([1; 12]);
        assert!(!address.is_pending([1; 12]) && address.is_pending([2; 12]));
    }
}
