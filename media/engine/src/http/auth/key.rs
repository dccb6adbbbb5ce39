//! The key that signs sessions: derived from the secret of the node, which the nodes of a cluster
//! share, so that a session is valid on every node.

use ring::hmac;

use crate::runtime::node_secret::NodeSecret;

/// The HMAC key of session cookies.
#[derive(Clone)]
pub struct SessionKey(hmac::Key);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

impl SessionKey {
    /// Derives the key from the secret of the node.
    pub fn new(secret: &NodeSecret) -> Self {
        Self(secret.hmac_key("headwater session 1"))
    }

    /// The key of a node with this secret, of at least 16 bytes.
    #[cfg(test)]
    pub(in crate::http) fn from_secret(secret: &[u8]) -> Self {
        Self::new(&NodeSecret::new(secret))
    }

    pub(super) fn sign(&self, text: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, text)
    }

    /// Verifies a signature in constant time.
    pub(super) fn verify(&self, text: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, text, tag).is_ok()
    }
}
