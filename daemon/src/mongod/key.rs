//! What the members of a replica set know each other by, and the password of the user that keeps the set: both derived from the
//! secret that the nodes of the cluster share anyway (HKDF-SHA256, RFC 5869), so that there is none more to store and to hand out.
//!
//! The secret of the relay and not the password of the registry, so that the password can be changed without the members
//! losing each other.

use ring::hkdf::{HKDF_SHA256, KeyType, Salt};

use crate::aws::Secret;

/// The cluster's secret is too short to derive anything from.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret of the relay has fewer than {MIN_BYTES} characters")]
pub(crate) struct TooShort;

/// What follows from the secret of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The text of the key file: 128 characters, as MongoDB takes 6 to 1024 of base64's.
    pub file: Secret,
    /// The password of the keeper.
    pub keeper: Secret,
}

impl Keys {
    /// Of a cluster's secret, without white space around it.
    pub(crate) fn derive(secret: &Secret, cluster: &str) -> Result<Self, TooShort> {
        let secret = secret.expose().trim();
        if secret.len() < MIN_BYTES {
            return Err(TooShort);
        }
        let key = Salt::new(HKDF_SHA256, b"headwater registry").extract(secret.as_bytes());
        let text = |purpose: &[u8]| {
            let mut bytes = [0; BYTES];
            let info = [purpose, cluster.as_bytes()];
            let derived = key.expand(&info, Bytes).and_then(|derived| derived.fill(&mut bytes));
            derived.expect("HKDF gives up to 255 times 32 bytes");
            Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        };
        Ok(Self { file: text(b"key file\0"), keeper: text(b"keeper\0") })
    }
}

struct Bytes;

impl KeyType for Bytes {
    fn len(&self) -> usize {
        BYTES
    }
}

const BYTES: usize = 64;
/// As the relay wants it.
const MIN_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: &str, cluster: &str) -> Keys {
        Keys::derive(&Secret::new(secret.to_owned()), cluster).unwrap()
    }

    #[test]
    fn all_nodes_of_a_cluster_derive_the_same_and_those_of_others_do_not() {
        let ours = keys("a secret of 16 bytes", "demo");
        assert_eq!(keys(" a secret of 16 bytes\n", "demo"), ours);
        for other in [keys("a secret of 16 bytes", "other"), keys("another one of 16 bytes", "demo")] {
            assert!(other.file != ours.file && other.keeper != ours.keeper);
        }
        assert_ne!(ours.file, ours.keeper);
        assert!(ours.file.expose().len() == 128 && ours.file.expose().bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(!format!("{ours:?}").contains(&ours.file.expose()[..8]));
    }

    /// A version that derived another key would lock its nodes out of the sets of those before.
    #[test]
    fn what_is_derived_stays_the_same_for_ever() {
        let ours = keys("0123456789abcdef", "demo");
        assert!(ours.file.expose().starts_with(KNOWN), "{}", ours.file.expose());
    }

    /// By another implementation (Python's hmac).
    const KNOWN: &str = "87c0eafda189bdbb";

    #[test]
    fn a_short_secret_is_refused() {
        assert_eq!(Keys::derive(&Secret::new("hunter2".to_owned()), "demo"), Err(TooShort));
    }
}
