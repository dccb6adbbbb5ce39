//! ICE-lite of one session (RFC 8445 §2.5), with checks of its own: answers the connectivity checks
//! of the peer, verifies the addresses that they come from, and selects the pair to send to.
//!
//! ```text
//!   STUN request  --> verify --> response, own check; remote addresses, nominations
//!   STUN response --> verify --> the address is proven --> selected pair, as long as it answers
//! ```
//!
//! A lite agent sends no checks. This one does, because a peer that knows its credentials could
//! otherwise send one check with a forged source address and have the media sent there
//! (docs/decisions/2026-11-30-ice-lite-with-own-checks.md). The peer stays the controlling agent.
//!
//! Checks go in, responses are queued at the socket, and the caller receives the outcome. Must not
//! know what the session sends or receives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use headwater_wire::webrtc::{BindingRequest, BindingResponse, Credentials, StunError, binding_check};
use rtc_crypto::RTCCrypto;

use crate::gateway::webrtc::transport::remote_address::RemoteAddress;
use crate::gateway::webrtc::transport::udp::{AddressPair, Socket};

/// Maximum number of remote addresses per peer: its interfaces and their NAT mappings.
const MAX_REMOTE_ADDRESSES: usize = 16;
/// Number of STUN transactions remembered, so that a request replayed from another address is not
/// mistaken for a move of the peer.
const MAX_TRANSACTIONS: usize = 64;
/// Interval between queries for the kernel's source address towards a peer.
const ROUTE_QUERY_INTERVAL: Duration = Duration::from_secs(30);
/// The selected address is checked once a second. The timer that triggers the checks may run a
/// little early.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(900);

/// The connectivity of one session.
#[derive(Debug)]
pub(crate) struct IceAgent {
    local: Credentials,
    remote: Credentials,
    /// Part of the transaction ids of the node's own checks: identifies the session of an answer.
    tag: u32,
    tie_breaker: u64,
    /// Remote addresses with an authenticated check, most recent last.
    addresses: Vec<RemoteAddress>,
    transactions: Vec<([u8; 12], SocketAddr)>,
    /// Number of nominations so far.
    nominations: u64,
    selected: Option<SelectedPair>,
    /// Time of the last own check that the timer triggered.
    checked_at: Option<Instant>,
    /// Time of the last proof of any address; initially, of the creation.
    answered_at: Instant,
}

/// The pair to send to.
#[derive(Debug)]
struct SelectedPair {
    received: AddressPair,
    /// The same without the local address if the kernel selects it anyway.
    resolved: AddressPair,
    /// When the kernel was last queried for its source address.
    queried_at: Instant,
}

/// The outcome of an authenticated STUN check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CheckOutcome {
    /// Answered; the remote address is known from now on.
    Valid {
        /// Address removed because the limit per peer is reached.
        evicted: Option<SocketAddr>,
    },
    /// A retransmission of an earlier check; answered again.
    Repeated,
    /// A copy of an earlier check from another address; not answered.
    Replayed,
}

impl IceAgent {
    /// Creates an agent without addresses. `remote` are the credentials of the peer's offer; `tag`
    /// is returned by [`IceAgent::tag_of`] for the answers to this agent's checks.
    pub(crate) fn new(local: Credentials, remote: Credentials, tag: u32, now: Instant) -> Self {
        Self {
            local,
            remote,
            tag,
            tie_breaker: rand::random(),
            addresses: Vec::new(),
            transactions: Vec::new(),
            nominations: 0,
            selected: None,
            checked_at: None,
            answered_at: now,
        }
    }

    /// Returns the username fragment to which the peer addresses its checks.
    pub(crate) fn local_ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// Returns the known remote addresses, proven or not, most recent last.
    pub(crate) fn remote_addresses(&self) -> impl DoubleEndedIterator<Item = SocketAddr> {
        self.addresses.iter().map(|address| address.pair.remote)
    }

    /// Returns the selected remote address, or else the most recent one.
    pub(crate) fn remote_address(&self) -> Option<SocketAddr> {
        let selected = self.selected.as_ref().map(|selected| selected.received.remote);
        selected.or_else(|| self.remote_addresses().next_back())
    }

    /// Returns true if a valid check has arrived.
    pub(crate) fn has_peer(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Returns true if the peer currently receives what is sent to this address.
    pub(crate) fn is_proven(&self, now: Instant, address: SocketAddr) -> bool {
        self.find(address).is_some_and(|index| self.addresses[index].is_proven(now))
    }

    /// Returns the pair that media may be sent to: the selected one while its remote address
    /// answers.
    pub(crate) fn media_pair(&self, now: Instant) -> Option<AddressPair> {
        let selected = self.selected.as_ref()?;
        self.is_proven(now, selected.received.remote).then_some(selected.resolved)
    }

    /// Returns true if no address was proven for more than `timeout` (RFC 7675 §5.1).
    pub(crate) fn is_expired(&self, now: Instant, timeout: Duration) -> bool {
        now.saturating_duration_since(self.answered_at) > timeout
    }

    /// Answers a connectivity check (RFC 8445 §7.3) and checks its source address in return.
    /// `bytes` is the length of the datagram.
    ///
    /// # Errors
    /// Fails if the check is not authentic.
    pub(crate) fn on_check(
        &mut self,
        now: Instant,
        request: &mut BindingRequest,
        from: &AddressPair,
        bytes: usize,
        socket: &mut Socket,
        crypto: &dyn RTCCrypto,
    ) -> Result<CheckOutcome, StunError> {
        request.verify(&self.local, &self.remote.ufrag, crypto)?;
        let transaction = request.transaction();
        let seen = self.transactions.iter().find(|(seen, _)| *seen == transaction).map(|(_, first)| *first);
        if seen.is_some_and(|first| first != from.remote) {
            return Ok(CheckOutcome::Replayed);
        }
        let response = request.response(from.remote, &self.local, crypto);
        if seen.is_some() {
            // A retransmission because the response was lost, or a replayed recording.
            self.on_received(from.remote, bytes);
            if let Some(response) = &response {
                self.send(from, response, socket);
            }
            return Ok(CheckOutcome::Repeated);
        }
        if self.transactions.len() == MAX_TRANSACTIONS {
            self.transactions.remove(0);
        }
        self.transactions.push((transaction, from.remote));
        let evicted = self.remember_address(now, from);
        self.on_received(from.remote, bytes);
        self.on_new_check(now, from.remote, request.use_candidate);
        // The response first: a peer whose own check has succeeded does not repeat it when it
        // receives the check of the node (RFC 8445 §7.3.1.4).
        if let Some(response) = &response {
            self.send(from, response, socket);
        }
        if !self.is_selected(from.remote) || !self.is_proven(now, from.remote) {
            self.send_check(from.remote, socket, crypto);
        }
        Ok(CheckOutcome::Valid { evicted })
    }

    /// Returns the tag of the agent whose check a response answers.
    pub(crate) fn tag_of(response: &BindingResponse) -> u32 {
        let [.., a, b, c, d] = response.transaction();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Processes the answer to an own check, which proves its source address. Returns false if it
    /// answers no check of this address or is not authentic.
    pub(crate) fn on_answer(
        &mut self,
        now: Instant,
        response: &mut BindingResponse,
        from: &AddressPair,
        crypto: &dyn RTCCrypto,
    ) -> bool {
        let Some(index) = self.find(from.remote) else { return false };
        let transaction = response.transaction();
        let is_valid =
            self.addresses[index].is_pending(transaction) && response.verify(&self.remote.password, crypto).is_ok();
        if is_valid {
            self.addresses[index].remove_pending_check(transaction);
            self.prove(now, from.remote);
        }
        is_valid
    }

    /// Records that the peer receives what is sent to this address, and selects it if it is better
    /// than the selected one.
    pub(crate) fn prove(&mut self, now: Instant, address: SocketAddr) {
        let Some(index) = self.find(address) else { return };
        self.addresses[index].prove(now);
        self.answered_at = now;
        self.consider(now, index);
    }

    /// Checks the selected address, or else the most recent one, if a second has passed since the
    /// last call that did so.
    pub(crate) fn on_timeout(&mut self, now: Instant, socket: &mut Socket, crypto: &dyn RTCCrypto) {
        let due = self.checked_at.is_none_or(|at| now.saturating_duration_since(at) >= MIN_CHECK_INTERVAL);
        if let Some(address) = self.remote_address().filter(|_| due) {
            self.checked_at = Some(now);
            self.send_check(address, socket, crypto);
        }
    }

    /// Counts a datagram of the peer: it increases what may be sent to an unproven address.
    pub(crate) fn on_received(&mut self, from: SocketAddr, bytes: usize) {
        if let Some(index) = self.find(from) {
            self.addresses[index].on_received(bytes);
        }
    }

    /// Queues a datagram that is not media, unless an unproven address would get too much.
    pub(crate) fn send(&mut self, pair: &AddressPair, datagram: &[u8], socket: &mut Socket) {
        if let Some(index) = self.find(pair.remote)
            && self.addresses[index].try_send(datagram.len())
        {
            socket.queue_datagram(pair, datagram);
        }
    }

    fn send_check(&mut self, address: SocketAddr, socket: &mut Socket, crypto: &dyn RTCCrypto) {
        let Some(index) = self.find(address) else { return };
        let mut transaction: [u8; 12] = rand::random();
        transaction[8..].copy_from_slice(&self.tag.to_be_bytes());
        let check = binding_check(transaction, &self.local.ufrag, &self.remote, self.tie_breaker, crypto);
        if let Some(check) = check {
            self.addresses[index].add_pending_check(transaction);
            let pair = self.addresses[index].pair;
            self.send(&pair, &check, socket);
        }
    }

    /// Records the nomination of an address, and selects it if it is proven and better than the
    /// selected one.
    fn on_new_check(&mut self, now: Instant, address: SocketAddr, nominated: bool) {
        let Some(index) = self.find(address) else { return };
        if nominated {
            self.nominations += 1;
            self.addresses[index].nomination = self.nominations;
        }
        if self.addresses[index].is_proven(now) {
            self.consider(now, index);
        }
    }

    /// Selects a proven address if there is none, if the peer nominated it later than the selected
    /// one, or if the selected one no longer answers.
    fn consider(&mut self, now: Instant, index: usize) {
        let candidate = &self.addresses[index];
        let selected = self.selected.as_ref().and_then(|s| self.find(s.received.remote));
        let is_better = selected.map(|selected| &self.addresses[selected]).is_none_or(|selected| {
            selected.pair.remote == candidate.pair.remote
                || candidate.nomination > selected.nomination
                || !selected.is_proven(now)
        });
        let pair = candidate.pair;
        if is_better {
            self.select_pair(now, pair);
        }
    }

    /// Selects the pair to send to. Queries the kernel for its source address if the pair is new
    /// and every [`ROUTE_QUERY_INTERVAL`], because routes change.
    fn select_pair(&mut self, now: Instant, pair: AddressPair) {
        let is_current = self.selected.as_ref().is_some_and(|selected| {
            selected.received == pair && now.saturating_duration_since(selected.queried_at) < ROUTE_QUERY_INTERVAL
        });
        if !is_current {
            let resolved = pair.without_default_source();
            self.selected = Some(SelectedPair { received: pair, resolved, queried_at: now });
        }
    }

    fn is_selected(&self, address: SocketAddr) -> bool {
        self.selected.as_ref().is_some_and(|selected| selected.received.remote == address)
    }

    fn find(&self, address: SocketAddr) -> Option<usize> {
        self.addresses.iter().position(|known| known.pair.remote == address)
    }

    /// Makes a remote address the most recent one. Returns the address removed to stay within
    /// [`MAX_REMOTE_ADDRESSES`], if any: the oldest one that is not proven, so that forged checks
    /// cannot displace the real address.
    fn remember_address(&mut self, now: Instant, pair: &AddressPair) -> Option<SocketAddr> {
        if let Some(index) = self.find(pair.remote) {
            let mut known = self.addresses.remove(index);
            known.pair = *pair;
            self.addresses.push(known);
            return None;
        }
        let mut evicted = None;
        if self.addresses.len() == MAX_REMOTE_ADDRESSES {
            let is_removable = |address: &RemoteAddress| !self.is_selected(address.pair.remote);
            let unproven = self.addresses.iter().position(|a| is_removable(a) && !a.is_proven(now));
            let index = unproven.or_else(|| self.addresses.iter().position(is_removable)).unwrap_or(0);
            evicted = Some(self.addresses.remove(index).pair.remote);
        }
        self.addresses.push(RemoteAddress::new(*pair));
        evicted
    }
}

/// Generates ICE credentials of 48 and 144 random bits (RFC 8839 §5.4 requires 24 and 128).
pub(crate) fn generate_credentials() -> Credentials {
    let (ufrag, password): ([u8; 6], [u8; 18]) = (rand::random(), rand::random());
    Credentials { ufrag: STANDARD_NO_PAD.encode(ufrag), password: STANDARD_NO_PAD.encode(password) }
}

#[cfg(test)]
#[path = "ice_test.rs"]
mod tests;
