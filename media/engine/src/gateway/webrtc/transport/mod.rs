//! The transport of a WebRTC session: UDP sockets, ICE, DTLS, SRTP and the candidates of an answer.
//!
//! RULE: knows neither viewers nor WHEP, so that publishers can use it.

pub(super) mod candidates;
pub(super) mod dtls;
pub(super) mod dtls_srtp;
#[cfg(test)]
mod dtls_test;
pub(super) mod ice;
pub(super) mod liveness;
mod remote_address;
pub(super) mod rx_coalescing;
pub(super) mod session_id;
pub(super) mod srtp;
#[cfg(test)]
pub(super) mod test_peer;
pub(super) mod udp;
