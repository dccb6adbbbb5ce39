//! STUN as an ICE-lite agent needs it (RFC 8489, RFC 8445 §7.3): binding requests in, success responses out.
//!
//! A lite agent sends no checks of its own. It answers every request that is authenticated by its own password, and says
//! nothing to all others: an error response would only tell a stranger that somebody listens here.

use std::net::SocketAddr;

use rtc_crypto::RTCCrypto;
use rtc_stun::attributes::{ATTR_MESSAGE_INTEGRITY, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter as _, TransactionId};
use rtc_stun::xoraddr::XorMappedAddress;

/// Bytes of a binding request at most; real ones have about 100.
const MAX_BYTES: usize = 1_500;
/// Bytes of a USERNAME at most (RFC 8489 §14.3: below 509).
const MAX_USERNAME_BYTES: usize = 508;

/// Why a datagram was not taken as a binding request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// Not a STUN message, or one that breaks the rules.
    #[error("not a STUN message")]
    Malformed,
    /// A response or an indication, or another method.
    #[error("not a binding request")]
    NotARequest,
    /// Without USERNAME or MESSAGE-INTEGRITY.
    #[error("no credentials")]
    NoCredentials,
    /// The integrity does not match the password.
    #[error("wrong password")]
    WrongPassword,
}

/// One side's half of the ICE credentials (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name fragment.
    pub ufrag: String,
    /// The password. Whoever holds it may choose where media goes.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}, …)", self.ufrag)
    }
}

/// A binding request that claims to be from somebody; [`BindingRequest::verify`] tells.
#[derive(Debug)]
pub struct BindingRequest {
    message: Message,
    username: String,
    /// True if the peer has chosen this path.
    pub use_candidate: bool,
}

impl BindingRequest {
    /// Reads a request. Nothing in it can be trusted yet.
    ///
    /// # Errors
    /// See [`StunError`].
    pub fn parse(datagram: &[u8]) -> Result<Self, StunError> {
        let said = datagram.get(2..4).map(|len| 20 + usize::from(u16::from_be_bytes([len[0], len[1]])));
        if datagram.len() > MAX_BYTES || said != Some(datagram.len()) {
            return Err(StunError::Malformed);
        }
        let mut message = Message::new();
        message.unmarshal_binary(datagram).map_err(|_| StunError::Malformed)?;
        if message.typ != BINDING_REQUEST {
            return Err(StunError::NotARequest);
        }
        if !message.contains(ATTR_MESSAGE_INTEGRITY) {
            return Err(StunError::NoCredentials);
        }
        let username = message.get(ATTR_USERNAME).map_err(|_| StunError::NoCredentials)?;
        let username = String::from_utf8(username).map_err(|_| StunError::Malformed)?;
        if username.len() > MAX_USERNAME_BYTES {
            return Err(StunError::Malformed);
        }
        let use_candidate = message.contains(ATTR_USE_CANDIDATE);
        Ok(Self { message, username, use_candidate })
    }

    /// The fragment that names the receiver: what stands before the colon of USERNAME (RFC 8445 §7.2.2).
    pub fn receiver_ufrag(&self) -> &str {
        self.username.split(':').next().unwrap_or_default()
    }

    /// Checks that the sender knows `local.password` and names both sides.
    ///
    /// # Errors
    /// [`StunError::WrongPassword`] if not.
    pub fn verify(&mut self, local: &Credentials, remote_ufrag: &str, crypto: &dyn RTCCrypto) -> Result<(), StunError> {
        let names = self.username.split_once(':');
        if names != Some((local.ufrag.as_str(), remote_ufrag)) {
            return Err(StunError::WrongPassword);
        }
        // What follows the integrity is not covered by it (RFC 8489 §14.5); only FINGERPRINT may stand there.
        let covered = self.message.attributes.0.iter().position(|a| a.typ == ATTR_MESSAGE_INTEGRITY);
        let used = self.message.attributes.0.iter().position(|a| a.typ == ATTR_USE_CANDIDATE);
        if used > covered {
            return Err(StunError::WrongPassword);
        }
        MessageIntegrity::check(&mut self.message, local.password.as_bytes(), crypto)
            .map_err(|_| StunError::WrongPassword)
    }

    /// The transaction id: the same request sent twice has the same one.
    pub fn transaction(&self) -> [u8; 12] {
        self.message.transaction_id.0
    }

    /// The success response for a request that came from `from`. `None` if it cannot be built, which no request causes.
    pub fn response(&self, from: SocketAddr, local: &Credentials, crypto: &dyn RTCCrypto) -> Option<Vec<u8>> {
        let mut response = Message::new();
        response.set_type(BINDING_SUCCESS);
        response.transaction_id = TransactionId(self.transaction());
        response.write_header();
        XorMappedAddress { ip: from.ip().to_canonical(), port: from.port() }.add_to(&mut response).ok()?;
        let password = local.password.as_bytes();
        MessageIntegrity::new_raw_integrity_with_provider(password, crypto).add_to(&mut response).ok()?;
        FINGERPRINT.add_to(&mut response).ok()?;
        Some(response.raw)
    }
}

#[cfg(test)]
#[path = "stun_test.rs"]
mod tests;
