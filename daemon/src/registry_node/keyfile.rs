//! Derives the replica set's key file and the password of its managing user from the secret that
//! the nodes of the cluster share anyway (HKDF-SHA256, RFC 5869), so that no other secret must be
//! stored and distributed.
//!
//! It uses the relay secret and not the registry password, so that the password can be changed
//! without breaking the set.

use headwater_api::secret::Secret;
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};

/// The relay secret is too short to derive keys from.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the relay secret has fewer than {MIN_SECRET_BYTES} characters")]
pub(crate) struct SecretTooShort;

/// The keys derived from the secret of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterKeys {
    /// Text of the key file: 128 characters; MongoDB accepts 6 to 1024 base64 characters.
    pub key_file: Secret,
    /// Password of the user that manages the replica set.
    pub reconciler_password: Secret,
}

impl ClusterKeys {
    /// Derives the keys from a cluster's secret. White space around the secret is ignored.
    pub(crate) fn derive(secret: &Secret, cluster: &str) -> Result<Self, SecretTooShort> {
        let secret = secret.reveal().trim();
        if secret.len() < MIN_SECRET_BYTES {
            return Err(SecretTooShort);
        }
        let key = Salt::new(HKDF_SHA256, b"headwater registry").extract(secret.as_bytes());
        let text = |purpose: &[u8]| {
            let mut bytes = [0; KEY_BYTES];
            let info = [purpose, cluster.as_bytes()];
            let derived = key.expand(&info, KeyLength).and_then(|derived| derived.fill(&mut bytes));
            derived.expect("HKDF gives up to 255 times 32 bytes");
            Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        };
        Ok(Self { key_file: text(b"key file\0"), reconciler_password: text(b"keeper\0") })
    }
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

const KEY_BYTES: usize = 64;
/// The relay's minimum, too.
const MIN_SECRET_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: &str, cluster: &str) -> ClusterKeys {
        ClusterKeys::derive(&Secret::new(secret.to_owned()), cluster).unwrap()
    }

    #[test]
    fn nodes_of_one_cluster_derive_the_same_keys() {
        let own = keys("a secret of 16 bytes", "demo");
        assert_eq!(keys(" a secret of 16 bytes\n", "demo"), own);
        for other in [keys("a secret of 16 bytes", "other"), keys("another one of 16 bytes", "demo")] {
            assert!(other.key_file != own.key_file && other.reconciler_password != own.reconciler_password);
        }
        assert_ne!(own.key_file, own.reconciler_password);
        assert!(own.key_file.reveal().len() == 128 && own.key_file.reveal().bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(!format!("{own:?}").contains(&own.key_file.reveal()[..8]));
    }

    /// A version that derived other keys could not join the replica sets of earlier versions.
    #[test]
    fn derived_keys_never_change() {
        let own = keys("0123456789abcdef", "demo");
        assert!(own.key_file.reveal().starts_with(EXPECTED_PREFIX), "{}", own.key_file.reveal());
    }

    /// Computed by another implementation (Python's hmac).
    const EXPECTED_PREFIX: &str = "87c0eafda189bdbb";

    #[test]
    fn short_secret_is_rejected() {
        assert_eq!(ClusterKeys::derive(&Secret::new("hunter2".to_owned()), "demo"), Err(SecretTooShort));
    }
}
