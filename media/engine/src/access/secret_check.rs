//! Compares what a client presents with a secret, in a time that does not depend on either.

use headwater_api::StreamName;
use headwater_api::documents::Grant;
use headwater_api::secret::Secret;
use ring::{digest, hmac};

/// A secret that is only ever compared. Comparing the HMACs of both values, under a random key,
/// reveals neither contents nor length by its timing.
pub(super) struct SecretCheck {
    key: hmac::Key,
    expected: hmac::Tag,
}

impl SecretCheck {
    pub(super) fn new(secret: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        let expected = hmac::sign(&key, secret);
        Self { key, expected }
    }

    /// True if the client presented the secret.
    pub(super) fn matches(&self, presented: &[u8]) -> bool {
        hmac::verify(&self.key, presented, self.expected.as_ref()).is_ok()
    }
}

impl std::fmt::Debug for SecretCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretCheck(…)")
    }
}

/// True if `presented` is the hash of Ant Media's hash control: the SHA-256 of stream id, `publish`
/// or `play`, and the app's secret, in hexadecimal.
pub(super) fn is_stream_hash(presented: &str, stream: &StreamName, action: Grant, secret: &Secret) -> bool {
    if presented.len() != HASH_DIGITS {
        return false;
    }
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [stream.stream_id(), action.as_str(), secret.reveal()] {
        context.update(part.as_bytes());
    }
    let expected: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    SecretCheck::new(expected.as_bytes()).matches(presented.to_ascii_lowercase().as_bytes())
}

const HASH_DIGITS: usize = 2 * digest::SHA256_OUTPUT_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_matches() {
        let check = SecretCheck::new(b"right key");
        assert!(check.matches(b"right key"));
        for wrong in ["", "right ke", "right key ", "Right key", "wrong key"] {
            assert!(!check.matches(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{check:?}"), "SecretCheck(…)");
    }

    #[test]
    fn hash_is_that_of_ant_media() {
        let (stream, secret) = (StreamName::parse("live/stream1").unwrap(), Secret::new("secret"));
        // printf stream1playsecret | sha256sum
        let hash = "233e10ece077265fccae9207490faee00192690096b0a7d5a6211cfde327643e";
        assert!(is_stream_hash(hash, &stream, Grant::Play, &secret));
        assert!(is_stream_hash(&hash.to_ascii_uppercase(), &stream, Grant::Play, &secret));
        assert!(!is_stream_hash(hash, &stream, Grant::Publish, &secret));
        assert!(!is_stream_hash(hash, &StreamName::parse("live/stream2").unwrap(), Grant::Play, &secret));
        assert!(!is_stream_hash(hash, &stream, Grant::Play, &Secret::new("other")));
        assert!(!is_stream_hash("", &stream, Grant::Play, &secret));
    }
}
