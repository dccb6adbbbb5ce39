//! A play session: what an admitted viewer presents from then on, instead of its token.
//!
//! The entry playlist of HLS has it in the URL of the media playlist, and the answer to a WHEP
//! offer in `Location`. A request with it needs neither the token nor the registry, and works on
//! every node that has the same key:
//!
//! ```text
//!   base64url( POLICY 8 | TOKEN 16 | TOKEN EXPIRES 8 | EXPIRES 8 | TAG 16 )
//!
//!   POLICY         fingerprint of the policy and the key that admitted the viewer
//!   TOKEN          id of the token, for its revocation; zero without a token
//!   TOKEN EXPIRES  Unix time in milliseconds, big-endian; the maximum without a token
//!   EXPIRES        Unix time in milliseconds, big-endian: the end of the session
//!   TAG            first half of the HMAC-SHA256 of the stream's name, a zero byte and the above
//! ```
//!
//! Must not know policies: it says what was true when the viewer was admitted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use headwater_api::StreamName;
use ring::hmac;

use super::short_tag::{TAG_BYTES, is_short_tag, short_tag};
use super::signing_keys::{FINGERPRINT_BYTES, Fingerprint};
use super::token_digest::TokenId;

/// The content of a play session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlaySession {
    /// Identifies the policy and its key.
    pub(super) policy: Fingerprint,
    /// The token that admitted the viewer.
    pub(super) token: TokenId,
    /// Unix time at which that token expires, in milliseconds; `u64::MAX`: never.
    pub(super) token_expires_at_ms: u64,
    /// Unix time of the end of the session, in milliseconds.
    pub(super) expires_at_ms: u64,
}

impl PlaySession {
    /// Returns the session for viewers of `stream`, as a value for a query.
    pub(super) fn seal(&self, key: &hmac::Key, stream: &StreamName) -> String {
        let mut bytes = Vec::with_capacity(SEALED_BYTES);
        bytes.extend_from_slice(&self.policy);
        bytes.extend_from_slice(&self.token.0);
        bytes.extend_from_slice(&self.token_expires_at_ms.to_be_bytes());
        bytes.extend_from_slice(&self.expires_at_ms.to_be_bytes());
        let tag = short_tag(key, &[stream.as_str().as_bytes(), &[0], &bytes]);
        bytes.extend_from_slice(&tag);
        BASE64.encode(bytes)
    }

    /// Parses a session; `None` if it is damaged, is for another stream, or has ended.
    pub(super) fn open(value: &str, key: &hmac::Key, stream: &StreamName, now_ms: u64) -> Option<Self> {
        if value.len() != VALUE_CHARS {
            return None;
        }
        let bytes: [u8; SEALED_BYTES] = BASE64.decode(value).ok()?.try_into().ok()?;
        let (content, tag) = bytes.split_last_chunk()?;
        if !is_short_tag(key, &[stream.as_str().as_bytes(), &[0], content], tag) {
            return None;
        }
        let (policy, rest) = content.split_first_chunk()?;
        let (token, rest) = rest.split_first_chunk()?;
        let (token_expires, rest) = rest.split_first_chunk()?;
        let session = Self {
            policy: *policy,
            token: TokenId(*token),
            token_expires_at_ms: u64::from_be_bytes(*token_expires),
            expires_at_ms: u64::from_be_bytes(rest.try_into().ok()?),
        };
        (now_ms < session.expires_at_ms).then_some(session)
    }
}

const SEALED_BYTES: usize = FINGERPRINT_BYTES + TokenId::BYTES + 8 + 8 + TAG_BYTES;
/// Length of the base64 of [`SEALED_BYTES`] without padding.
const VALUE_CHARS: usize = (SEALED_BYTES * 4).div_ceil(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &[u8]) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, secret)
    }

    const SESSION: PlaySession = PlaySession {
        policy: [1; FINGERPRINT_BYTES],
        token: TokenId([2; TokenId::BYTES]),
        token_expires_at_ms: u64::MAX,
        expires_at_ms: 1_000,
    };

    #[test]
    fn session_is_valid_for_its_stream_until_it_ends() {
        let (stream, other) = (StreamName::parse("live/a").unwrap(), StreamName::parse("live/b").unwrap());
        let value = SESSION.seal(&key(b"k"), &stream);
        assert_eq!(value.len(), VALUE_CHARS);
        assert_eq!(PlaySession::open(&value, &key(b"k"), &stream, 999), Some(SESSION));
        assert_eq!(PlaySession::open(&value, &key(b"k"), &stream, 1_000), None);
        assert_eq!(PlaySession::open(&value, &key(b"k"), &other, 999), None);
        assert_eq!(PlaySession::open(&value, &key(b"other"), &stream, 999), None);
    }

    #[test]
    fn truncated_or_modified_session_is_refused() {
        let stream = StreamName::parse("live/a").unwrap();
        let value = SESSION.seal(&key(b"k"), &stream);
        for end in 0..value.len() {
            assert_eq!(PlaySession::open(&value[..end], &key(b"k"), &stream, 0), None, "{end}");
        }
        for at in 0..value.len() {
            let mut bytes = value.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(PlaySession::open(&changed, &key(b"k"), &stream, 0), None, "{changed}");
        }
        for garbage in ["", "ä", &"A".repeat(VALUE_CHARS), &"A".repeat(100_000)] {
            assert_eq!(PlaySession::open(garbage, &key(b"k"), &stream, 0), None);
        }
    }
}
