//! A WHEP viewer (draft-ietf-wish-whep): a real ICE, DTLS and SRTP client that then only counts packets.
//!
//! ```text
//! POST offer -> answer -> STUN check -> DTLS handshake -> SRTP keys -> count; a sample decrypts and reads marks
//! ```

mod dtls;
mod sdp;
mod stun;
pub(crate) mod viewer;

pub(crate) use dtls::Identity;
