//! What WebRTC needs before media flows: STUN and ICE-lite, SDP offers and answers (RFC 8445, RFC 8489, RFC 8866, RFC 9725).
