//! The transport of a WebRTC session: UDP sockets, DTLS, SRTP and the candidates of an answer.
//!
//! RULE: knows neither viewers nor WHEP, so that publishers can use it.

pub(super) mod candidates;
pub(super) mod dtls;
pub(super) mod liveness;
pub(super) mod rx_coalescing;
pub(super) mod srtp;
pub(super) mod udp;
