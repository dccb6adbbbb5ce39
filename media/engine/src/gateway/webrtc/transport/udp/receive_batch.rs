//! The datagrams received by one system call.
//!
//! `mmsg` fills a batch, the worker reads it and returns it for reuse. Must not know the socket.

use crate::gateway::webrtc::transport::udp::address_pair::AddressPair;

/// Maximum number of datagrams received per system call.
pub(super) const RECEIVE_MESSAGES: usize = 32;
/// Maximum size of a received datagram. Clients send nothing longer; a longer datagram is truncated
/// and fails its integrity check.
pub(super) const RECEIVE_BYTES: usize = 2_048;

/// The datagrams received by one system call.
#[derive(Default)]
pub(crate) struct ReceiveBatch {
    /// One slot of [`RECEIVE_BYTES`] per datagram. Empty until the first [`ReceiveBatch::clear`].
    pub(super) bytes: Vec<u8>,
    /// Addresses and length of each datagram.
    pub(super) datagrams: Vec<(AddressPair, usize)>,
}

impl ReceiveBatch {
    /// Iterates over the datagrams and their addresses, in order of arrival.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&AddressPair, &[u8])> {
        self.datagrams
            .iter()
            .zip(self.bytes.chunks_exact(RECEIVE_BYTES))
            .map(|((pair, len), bytes)| (pair, &bytes[..*len]))
    }

    /// Returns true if nothing was received.
    pub(crate) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Returns true if the limit was reached, so that more datagrams may be waiting.
    pub(crate) fn is_full(&self) -> bool {
        self.datagrams.len() == RECEIVE_MESSAGES
    }

    /// Removes all datagrams and makes space for [`RECEIVE_MESSAGES`] others.
    pub(super) fn clear(&mut self) {
        self.bytes.resize(RECEIVE_MESSAGES * RECEIVE_BYTES, 0);
        self.datagrams.clear();
    }
}
