//! The signalling and control formats of WebRTC: STUN for an ICE-lite agent (RFC 8445, RFC 8489),
//! SDP offers and answers (RFC 8866, RFC 9725), DTLS ClientHello (RFC 5764) and RTCP (RFC
//! 3550, RFC 4585).
//!
//! The module must not know sockets, clocks, streams, or keys that outlive a call.

mod answer;
mod client_hello;
mod dtls_fragments;
mod fingerprint;
mod offer;
mod payload_types;
mod rtcp;
mod stun;

pub use answer::{Answer, SendParameters};
pub use client_hello::{ClientHello, ClientHelloError};
pub use dtls_fragments::count_handshake_fragments;
pub use fingerprint::Fingerprint;
pub use offer::{MAX_OFFER_BYTES, Offer, OfferError, Section, SectionKind};
pub use rtcp::{Feedback, SenderReport, goodbye};
pub use stun::{BindingRequest, BindingResponse, Credentials, StunError, binding_check};

/// The protocol of a datagram on a WebRTC port, by its first byte (RFC 7983 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramKind {
    /// First byte 0 to 3.
    Stun,
    /// First byte 20 to 63.
    Dtls,
    /// First byte 128 to 191, second byte 192 to 223 (RFC 5761 §4).
    Rtcp,
    /// First byte 128 to 191.
    Rtp,
    /// Any other first byte, or an empty datagram.
    Unknown,
}

impl DatagramKind {
    /// Returns the kind of a datagram.
    pub fn of(datagram: &[u8]) -> Self {
        match datagram {
            [0..=3, ..] => Self::Stun,
            [20..=63, ..] => Self::Dtls,
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, ..] => Self::Rtp,
            _ => Self::Unknown,
        }
    }
}
