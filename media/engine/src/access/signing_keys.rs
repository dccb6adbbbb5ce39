//! The keys that sign what this node hands out to viewers: play sessions and media URLs. All nodes
//! of a cluster derive the same ones, so that any node accepts what another one has signed.

use ring::hmac;

use crate::runtime::node_secret::NodeSecret;

/// The keys; clones share them.
#[derive(Clone)]
pub(super) struct SigningKeys {
    session: hmac::Key,
    url: hmac::Key,
    fingerprint: hmac::Key,
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKeys(…)")
    }
}

impl SigningKeys {
    /// Derives the keys from the secret of the node.
    pub(super) fn new(secret: &NodeSecret) -> Self {
        Self {
            session: secret.hmac_key("headwater play session 1"),
            url: secret.hmac_key("headwater media url 1"),
            fingerprint: secret.hmac_key("headwater policy fingerprint 1"),
        }
    }

    /// The key of play sessions.
    pub(super) fn session(&self) -> &hmac::Key {
        &self.session
    }

    /// The key of media URLs.
    pub(super) fn url(&self) -> &hmac::Key {
        &self.url
    }

    /// Identifies a text on every node without revealing it: nobody without the key can tell
    /// whether a guess is right.
    pub(super) fn fingerprint(&self, text: &str) -> Fingerprint {
        let tag = hmac::sign(&self.fingerprint, text.as_bytes());
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        fingerprint.copy_from_slice(&tag.as_ref()[..FINGERPRINT_BYTES]);
        fingerprint
    }
}

/// See [`SigningKeys::fingerprint`].
pub(super) type Fingerprint = [u8; FINGERPRINT_BYTES];

/// Length of a [`Fingerprint`].
pub(super) const FINGERPRINT_BYTES: usize = 8;
