//! ICE-lite of one session (RFC 8445 §2.5): answers the connectivity checks of the peer and selects
//! the pair of addresses to send to.
//!
//! ```text
//!   STUN request --> verify --> response --> remote addresses, selected pair
//! ```
//!
//! Checks go in, responses are queued at the socket, and the caller receives the [`CheckOutcome`].
//! Must not know what the session sends or receives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use headwater_wire::webrtc::{BindingRequest, Credentials, StunError};
use rtc_crypto::RTCCrypto;

use crate::gateway::webrtc::transport::udp::{AddressPair, Socket};

/// Maximum number of remote addresses per peer: its interfaces and their NAT mappings.
const MAX_REMOTE_ADDRESSES: usize = 16;
/// Number of STUN transactions remembered, so that a request replayed from another address is not
/// mistaken for a move of the peer.
const MAX_TRANSACTIONS: usize = 64;
/// Interval between queries for the kernel's source address towards a peer.
const ROUTE_QUERY_INTERVAL: Duration = Duration::from_secs(30);
/// A selected pair without a check for this duration is replaced by any other pair with one.
const PAIR_TIMEOUT: Duration = Duration::from_secs(6);

/// The connectivity of one session.
#[derive(Debug)]
pub(crate) struct IceAgent {
    credentials: Credentials,
    remote_ufrag: String,
    /// Remote addresses with an authenticated STUN check, most recent last.
    remote_addresses: Vec<SocketAddr>,
    transactions: Vec<([u8; 12], SocketAddr)>,
    /// The selected pair as received, and when the kernel was last queried for its source address.
    selected: Option<(AddressPair, Instant)>,
    /// Time of the last STUN check from the selected remote address.
    pair_confirmed_at: Instant,
    /// Time of the last STUN check from any remote address.
    last_check_at: Instant,
}

/// The outcome of an authenticated STUN check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CheckOutcome {
    /// Answered; the remote address is authenticated.
    Valid {
        /// The pair to send to from now on, if it has changed or its source was queried again.
        selected: Option<AddressPair>,
        /// Address removed because the limit per peer is reached.
        evicted: Option<SocketAddr>,
    },
    /// A retransmission of an earlier check; answered again.
    Repeated,
    /// A copy of an earlier check from another address; not answered.
    Replayed,
}

impl IceAgent {
    /// Creates an agent without addresses. `remote_ufrag` is the username fragment of the peer's
    /// offer.
    pub(crate) fn new(credentials: Credentials, remote_ufrag: String, now: Instant) -> Self {
        Self {
            credentials,
            remote_ufrag,
            remote_addresses: Vec::new(),
            transactions: Vec::new(),
            selected: None,
            pair_confirmed_at: now,
            last_check_at: now,
        }
    }

    /// Returns the username fragment to which the peer addresses its checks.
    pub(crate) fn local_ufrag(&self) -> &str {
        &self.credentials.ufrag
    }

    /// Returns the authenticated remote addresses, most recent last.
    pub(crate) fn remote_addresses(&self) -> &[SocketAddr] {
        &self.remote_addresses
    }

    /// Returns true if there was no valid check for more than `timeout`.
    pub(crate) fn is_expired(&self, now: Instant, timeout: Duration) -> bool {
        now.saturating_duration_since(self.last_check_at) > timeout
    }

    /// Answers a connectivity check (RFC 8445 §7.3) and updates the selected pair.
    ///
    /// # Errors
    /// Fails if the check is not authentic.
    pub(crate) fn on_check(
        &mut self,
        now: Instant,
        request: &mut BindingRequest,
        from: &AddressPair,
        socket: &mut Socket,
        crypto: &dyn RTCCrypto,
    ) -> Result<CheckOutcome, StunError> {
        request.verify(&self.credentials, &self.remote_ufrag, crypto)?;
        let transaction = request.transaction();
        let seen = self.transactions.iter().find(|(seen, _)| *seen == transaction).map(|(_, first)| *first);
        if seen.is_some_and(|first| first != from.remote) {
            return Ok(CheckOutcome::Replayed);
        }
        if let Some(response) = request.response(from.remote, &self.credentials, crypto) {
            socket.queue_datagram(from, &response);
        }
        if seen.is_some() {
            // A retransmission because the response was lost, or a replayed recording:
            // neither refreshes consent.
            return Ok(CheckOutcome::Repeated);
        }
        if self.transactions.len() == MAX_TRANSACTIONS {
            self.transactions.remove(0);
        }
        self.transactions.push((transaction, from.remote));
        Ok(self.on_new_check(now, from, request.use_candidate))
    }

    /// Updates the addresses and the selected pair after a check that was not seen before.
    /// `nominated`: it has the attribute USE-CANDIDATE.
    fn on_new_check(&mut self, now: Instant, from: &AddressPair, nominated: bool) -> CheckOutcome {
        self.last_check_at = now;
        let expired = now.saturating_duration_since(self.pair_confirmed_at) > PAIR_TIMEOUT;
        let is_current = self.selected.is_none_or(|(pair, _)| pair == *from);
        let selected = (is_current || nominated || expired).then(|| self.select_pair(now, from)).flatten();
        if self.selected.is_some_and(|(pair, _)| pair.remote == from.remote) {
            self.pair_confirmed_at = now;
        }
        CheckOutcome::Valid { selected, evicted: self.remember_address(from.remote) }
    }

    /// Selects the pair to send to. Queries the kernel for its source address if the pair is new
    /// and every [`ROUTE_QUERY_INTERVAL`], because routes change; otherwise returns `None`.
    fn select_pair(&mut self, now: Instant, pair: &AddressPair) -> Option<AddressPair> {
        let is_fresh = |(selected, at)| selected == *pair && now.saturating_duration_since(at) < ROUTE_QUERY_INTERVAL;
        if self.selected.is_some_and(is_fresh) {
            return None;
        }
        self.selected = Some((*pair, now));
        Some(pair.without_default_source())
    }

    /// Adds a remote address as the most recent one. Returns the address removed to stay within
    /// [`MAX_REMOTE_ADDRESSES`], if any.
    fn remember_address(&mut self, address: SocketAddr) -> Option<SocketAddr> {
        self.remote_addresses.retain(|known| *known != address);
        let evicted = (self.remote_addresses.len() == MAX_REMOTE_ADDRESSES).then(|| self.remote_addresses.remove(0));
        self.remote_addresses.push(address);
        evicted
    }
}

/// Generates ICE credentials of 48 and 144 random bits (RFC 8839 §5.4 requires 24 and 128).
pub(crate) fn generate_credentials() -> Credentials {
    let (ufrag, password): ([u8; 6], [u8; 18]) = (rand::random(), rand::random());
    Credentials { ufrag: STANDARD_NO_PAD.encode(ufrag), password: STANDARD_NO_PAD.encode(password) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(now: Instant) -> IceAgent {
        IceAgent::new(generate_credentials(), "efgh".to_owned(), now)
    }

    fn pair(port: u16) -> AddressPair {
        AddressPair::to(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Makes a check and returns the pair that it selects.
    fn select(agent: &mut IceAgent, now: Instant, port: u16, nominated: bool) -> Option<AddressPair> {
        match agent.on_new_check(now, &pair(port), nominated) {
            CheckOutcome::Valid { selected, .. } => selected,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn first_pair_is_kept_until_another_is_nominated_or_it_is_silent() {
        let begin = Instant::now();
        let mut agent = agent(begin);
        assert_eq!(select(&mut agent, begin, 1, false), Some(pair(1)));
        assert_eq!(select(&mut agent, begin, 2, false), None);
        assert_eq!(select(&mut agent, begin, 2, true), Some(pair(2)));
        assert_eq!(select(&mut agent, begin + PAIR_TIMEOUT, 1, false), None);
        let later = begin + PAIR_TIMEOUT + Duration::from_millis(1);
        assert_eq!(select(&mut agent, later, 1, false), Some(pair(1)));
    }

    #[test]
    fn source_of_the_selected_pair_is_queried_again_after_an_interval() {
        let begin = Instant::now();
        let mut agent = agent(begin);
        assert_eq!(select(&mut agent, begin, 1, true), Some(pair(1)));
        let almost = begin + ROUTE_QUERY_INTERVAL - Duration::from_millis(1);
        assert_eq!(select(&mut agent, almost, 1, true), None);
        assert_eq!(select(&mut agent, begin + ROUTE_QUERY_INTERVAL, 1, true), Some(pair(1)));
    }

    #[test]
    fn oldest_remote_address_is_evicted_above_the_limit() {
        let begin = Instant::now();
        let mut agent = agent(begin);
        let limit = MAX_REMOTE_ADDRESSES as u16;
        for port in 1..=limit {
            agent.on_new_check(begin, &pair(port), false);
        }
        // The address of port 1 becomes the most recent one.
        agent.on_new_check(begin, &pair(1), false);
        let outcome = agent.on_new_check(begin, &pair(limit + 1), false);
        assert_eq!(outcome, CheckOutcome::Valid { selected: None, evicted: Some(pair(2).remote) });
        assert_eq!(agent.remote_addresses().len(), MAX_REMOTE_ADDRESSES);
    }

    #[test]
    fn agent_expires_after_the_timeout_without_a_check() {
        let (begin, timeout) = (Instant::now(), Duration::from_secs(30));
        let mut agent = agent(begin);
        agent.on_new_check(begin + Duration::from_secs(1), &pair(1), false);
        assert!(!agent.is_expired(begin + Duration::from_secs(31), timeout));
        assert!(agent.is_expired(begin + Duration::from_millis(31_001), timeout));
    }
}
