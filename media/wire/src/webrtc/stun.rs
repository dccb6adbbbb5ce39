//! STUN for an ICE-lite agent that verifies addresses (RFC 8489, RFC 8445 §7, RFC 7675): binding
//! requests in, success responses out; its own checks out, their responses in.
//!
//! Every request that is authenticated with the agent's own password is answered, and all others
//! are ignored: an error response would only reveal the open port. The agent's own checks prove
//! that the peer receives what is sent to an address. They never nominate one.

use std::net::SocketAddr;

use rtc_crypto::RTCCrypto;
use rtc_stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_MESSAGE_INTEGRITY, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, MessageType, Setter as _, TransactionId};
use rtc_stun::xoraddr::XorMappedAddress;

/// Maximum length of a message; real ones have about 100 bytes.
const MAX_MESSAGE_BYTES: usize = 1_500;
/// PRIORITY of the node's own checks: a peer-reflexive candidate (RFC 8445 §5.1.2, §7.1.1).
const CHECK_PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;
/// Maximum length of a USERNAME (RFC 8489 §14.3: less than 509 bytes).
const MAX_USERNAME_BYTES: usize = 508;

/// A rejected datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// The datagram is not a STUN message, or a malformed one.
    #[error("not a STUN message")]
    Malformed,
    /// The message has another class or another method.
    #[error("not the expected class of binding message")]
    UnexpectedType,
    /// USERNAME or MESSAGE-INTEGRITY is missing.
    #[error("no credentials")]
    NoCredentials,
    /// MESSAGE-INTEGRITY or USERNAME does not match the credentials.
    #[error("wrong password")]
    WrongPassword,
}

/// The ICE credentials of one side (RFC 8839 §5.4). `Debug` does not print the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name fragment.
    pub ufrag: String,
    /// The password. A peer that knows it can choose the destination address of the media.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}, …)", self.ufrag)
    }
}

/// A binding request. It is not authenticated until [`BindingRequest::verify`] succeeds.
#[derive(Debug)]
pub struct BindingRequest {
    message: Message,
    username: String,
    /// True if the peer nominates this address pair (USE-CANDIDATE).
    pub use_candidate: bool,
}

impl BindingRequest {
    /// Parses a request without authenticating it.
    ///
    /// # Errors
    /// See [`StunError`].
    pub fn parse(datagram: &[u8]) -> Result<Self, StunError> {
        let message = parse_authenticated(datagram, BINDING_REQUEST)?;
        let username = message.get(ATTR_USERNAME).map_err(|_| StunError::NoCredentials)?;
        let username = String::from_utf8(username).map_err(|_| StunError::Malformed)?;
        if username.len() > MAX_USERNAME_BYTES {
            return Err(StunError::Malformed);
        }
        let use_candidate = message.contains(ATTR_USE_CANDIDATE);
        Ok(Self { message, username, use_candidate })
    }

    /// Returns the user name fragment of the receiver: the part of USERNAME before the colon
    /// (RFC 8445 §7.2.2).
    pub fn receiver_ufrag(&self) -> &str {
        self.username.split(':').next().unwrap_or_default()
    }

    /// Verifies that the sender knows `local.password` and that USERNAME contains both fragments.
    ///
    /// # Errors
    /// [`StunError::WrongPassword`] if not.
    pub fn verify(&mut self, local: &Credentials, remote_ufrag: &str, crypto: &dyn RTCCrypto) -> Result<(), StunError> {
        let names = self.username.split_once(':');
        if names != Some((local.ufrag.as_str(), remote_ufrag)) {
            return Err(StunError::WrongPassword);
        }
        // Attributes after MESSAGE-INTEGRITY are not authenticated (RFC 8489 §14.5), so a
        // USE-CANDIDATE there is rejected.
        let covered = self.message.attributes.0.iter().position(|a| a.typ == ATTR_MESSAGE_INTEGRITY);
        let used = self.message.attributes.0.iter().position(|a| a.typ == ATTR_USE_CANDIDATE);
        if used > covered {
            return Err(StunError::WrongPassword);
        }
        MessageIntegrity::check(&mut self.message, local.password.as_bytes(), crypto)
            .map_err(|_| StunError::WrongPassword)
    }

    /// Returns the transaction id. A retransmitted request has the same one.
    pub fn transaction(&self) -> [u8; 12] {
        self.message.transaction_id.0
    }

    /// Returns the success response to a request received from `from`. Returns `None` if it cannot
    /// be encoded, which no request can cause.
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

/// A success response to a check of the node. It is not authenticated until
/// [`BindingResponse::verify`] succeeds.
#[derive(Debug)]
pub struct BindingResponse {
    message: Message,
}

impl BindingResponse {
    /// Returns true if a datagram is a success response, valid or not.
    pub fn matches(datagram: &[u8]) -> bool {
        datagram.starts_with(&[1, 1])
    }

    /// Parses a success response without authenticating it.
    ///
    /// # Errors
    /// See [`StunError`].
    pub fn parse(datagram: &[u8]) -> Result<Self, StunError> {
        parse_authenticated(datagram, BINDING_SUCCESS).map(|message| Self { message })
    }

    /// Returns the transaction id of the check that this response answers.
    pub fn transaction(&self) -> [u8; 12] {
        self.message.transaction_id.0
    }

    /// Verifies that the sender knows the password of the peer that was checked.
    ///
    /// # Errors
    /// [`StunError::WrongPassword`] if not.
    pub fn verify(&mut self, remote_password: &str, crypto: &dyn RTCCrypto) -> Result<(), StunError> {
        MessageIntegrity::check(&mut self.message, remote_password.as_bytes(), crypto)
            .map_err(|_| StunError::WrongPassword)
    }
}

/// Encodes a connectivity check of the node, which is the controlled agent (RFC 8445 §7.1.1). It
/// has no USE-CANDIDATE: only the peer nominates. Returns `None` if it cannot be encoded, which no
/// credentials of an accepted offer can cause.
pub fn binding_check(
    transaction: [u8; 12],
    local_ufrag: &str,
    remote: &Credentials,
    tie_breaker: u64,
    crypto: &dyn RTCCrypto,
) -> Option<Vec<u8>> {
    let mut check = Message::new();
    check.set_type(BINDING_REQUEST);
    check.transaction_id = TransactionId(transaction);
    check.write_header();
    check.add(ATTR_USERNAME, format!("{}:{local_ufrag}", remote.ufrag).as_bytes());
    check.add(ATTR_PRIORITY, &CHECK_PRIORITY.to_be_bytes());
    check.add(ATTR_ICE_CONTROLLED, &tie_breaker.to_be_bytes());
    MessageIntegrity::new_raw_integrity_with_provider(remote.password.as_bytes(), crypto).add_to(&mut check).ok()?;
    FINGERPRINT.add_to(&mut check).ok()?;
    Some(check.raw)
}

/// Parses a message of this type that has MESSAGE-INTEGRITY, without verifying it.
fn parse_authenticated(datagram: &[u8], expected: MessageType) -> Result<Message, StunError> {
    let declared_bytes = datagram.get(2..4).map(|len| 20 + usize::from(u16::from_be_bytes([len[0], len[1]])));
    if datagram.len() > MAX_MESSAGE_BYTES || declared_bytes != Some(datagram.len()) {
        return Err(StunError::Malformed);
    }
    let mut message = Message::new();
    message.unmarshal_binary(datagram).map_err(|_| StunError::Malformed)?;
    if message.typ != expected {
        return Err(StunError::UnexpectedType);
    }
    if !message.contains(ATTR_MESSAGE_INTEGRITY) {
        return Err(StunError::NoCredentials);
    }
    Ok(message)
}

#[cfg(test)]
#[path = "stun_test.rs"]
mod tests;
