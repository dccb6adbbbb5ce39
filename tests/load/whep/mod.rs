//! A WHEP viewer (draft-ietf-wish-whep): a complete ICE, DTLS and SRTP client
//! that only counts packets.
//!
//! ```text
//! POST offer -> answer -> STUN check -> DTLS handshake -> SRTP keys -> count packets
//! ```

mod dtls;
mod sdp;
mod stun;
pub(crate) mod viewer;

pub(crate) use dtls::Identity;
