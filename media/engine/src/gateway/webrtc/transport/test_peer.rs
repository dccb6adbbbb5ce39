//! The ICE agent of a test's peer: writes checks as a controlling agent does, and answers those of
//! the node.
//!
//! Sockets on loopback receive what is sent to an address; a source address is forged by delivering
//! a datagram with the pair of another socket. Must not know the agent under test.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use headwater_wire::webrtc::{BindingRequest, Credentials};
use ring::hmac;

use crate::gateway::webrtc::transport::udp::AddressPair;

/// A peer that knows the credentials of both sides.
pub(crate) struct TestPeer {
    own: Credentials,
    node: Credentials,
}

impl TestPeer {
    pub(crate) fn new(own: Credentials, node: Credentials) -> Self {
        Self { own, node }
    }

    /// Encodes a new check (RFC 8445 §7.2.2), with USE-CANDIDATE if `nominated`.
    pub(crate) fn check(&self, nominated: bool) -> Vec<u8> {
        let mut out = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        out.extend(rand::random::<[u8; 12]>());
        attribute(&mut out, 0x0006, format!("{}:{}", self.node.ufrag, self.own.ufrag).as_bytes());
        attribute(&mut out, 0x0024, &0x6e00_1eff_u32.to_be_bytes()); // PRIORITY
        attribute(&mut out, 0x802a, &1_u64.to_be_bytes()); // ICE-CONTROLLING
        if nominated {
            attribute(&mut out, 0x0025, &[]); // USE-CANDIDATE
        }
        set_length(&mut out, 24);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.node.password.as_bytes());
        let integrity = hmac::sign(&key, &out);
        attribute(&mut out, 0x0008, integrity.as_ref());
        out
    }

    /// Returns the answer of the socket `at` to a check of the node. Returns `None` for any other
    /// datagram.
    pub(crate) fn answer(&self, datagram: &[u8], at: &UdpSocket) -> Option<Vec<u8>> {
        let provider = rtc_crypto::default_provider().unwrap();
        let mut request = BindingRequest::parse(datagram).ok()?;
        assert!(!request.use_candidate, "the node nominates");
        request.verify(&self.own, &self.node.ufrag, provider.crypto()).unwrap();
        request.response(at.local_addr().unwrap(), &self.own, provider.crypto())
    }
}

/// Binds a socket on loopback.
pub(crate) fn bind() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// Returns the pair of a datagram that comes, or claims to come, from a socket.
pub(crate) fn pair(socket: &UdpSocket) -> AddressPair {
    AddressPair::to(socket.local_addr().unwrap())
}

/// Receives everything that was sent to a socket before this call.
pub(crate) fn received(socket: &UdpSocket) -> Vec<Vec<u8>> {
    const END: &[u8] = b"end of the datagrams";
    bind().send_to(END, socket.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 2_048];
    let mut datagrams = Vec::new();
    loop {
        match socket.recv(&mut buffer).unwrap() {
            len if buffer[..len] == *END => return datagrams,
            len => datagrams.push(buffer[..len].to_vec()),
        }
    }
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    set_length(out, 0);
}

/// Writes the message length as if `more` bytes followed.
fn set_length(out: &mut [u8], more: usize) {
    let length = (out.len() - 20 + more) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
}
