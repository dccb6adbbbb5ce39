//! The signature of media URLs: of a stream, and of a window of 60 s.
//!
//! It is the same for all viewers of a stream, so that playlists are rendered once for all of them,
//! and that a cache in front of the nodes stores each segment once per window. Any node verifies it
//! with the keys of the cluster alone. It is valid in its own window and in the next one:
//!
//! ```text
//!   sig=WINDOW~TAG     WINDOW: Unix time / 60 s, in decimal digits
//!                      TAG:    base64url of the first half of the HMAC-SHA256 of the stream's
//!                              name, a zero byte and the window as 8 bytes, big-endian
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use headwater_api::StreamName;
use ring::hmac;

use super::error::AccessError;
use super::short_tag::{TAG_BYTES, is_short_tag, short_tag};

/// Duration of a window, in milliseconds.
const WINDOW_MS: u64 = 60_000;
/// Length of the base64 of a tag without padding.
const TAG_CHARS: usize = (TAG_BYTES * 4).div_ceil(3);

/// Signs the media URLs of a stream in the current window. `Display` writes the query.
#[derive(Clone, Copy)]
pub struct UrlSignature<'a> {
    key: &'a hmac::Key,
    stream: &'a StreamName,
    window: u64,
}

impl<'a> UrlSignature<'a> {
    /// The signature for URLs of `stream` that are handed out now.
    pub(super) fn new(key: &'a hmac::Key, stream: &'a StreamName, now_ms: u64) -> Self {
        Self { key, stream, window: now_ms / WINDOW_MS }
    }

    /// Number of its window: two signatures of one stream and window are equal.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Verifies the value of a signature, and returns for how long it will still be valid, in
    /// seconds.
    ///
    /// # Errors
    /// If it is damaged, is that of another stream, or has expired.
    pub(super) fn verify(value: &str, key: &hmac::Key, stream: &StreamName, now_ms: u64) -> Result<u64, AccessError> {
        let parts = || {
            let (window, tag) = value.split_once('~')?;
            // One spelling only: a cache would store each.
            let is_plain = window.bytes().all(|b| b.is_ascii_digit()) && !window.starts_with('0');
            let number: u64 = window.parse().ok().filter(|_| is_plain)?;
            let tag = if tag.len() == TAG_CHARS { BASE64.decode(tag).ok()? } else { return None };
            Some((number, tag.try_into().ok()?))
        };
        let (window, tag) = parts().ok_or(AccessError::SignatureInvalid)?;
        let now = now_ms / WINDOW_MS;
        if window.saturating_add(1) < now {
            return Err(AccessError::SignatureExpired);
        }
        // The clock of another node may be in the next window already.
        if window > now + 1 || !is_short_tag(key, &message(stream, &window.to_be_bytes()), &tag) {
            return Err(AccessError::SignatureInvalid);
        }
        Ok(((window + 2) * WINDOW_MS - now_ms) / 1_000)
    }
}

fn message<'a>(stream: &'a StreamName, window: &'a [u8; 8]) -> [&'a [u8]; 3] {
    [stream.as_str().as_bytes(), &[0], window]
}

impl fmt::Display for UrlSignature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = short_tag(self.key, &message(self.stream, &self.window.to_be_bytes()));
        write!(f, "sig={}~{}", self.window, BASE64.encode(tag))
    }
}

impl fmt::Debug for UrlSignature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlSignature").field("stream", &self.stream).field("window", &self.window).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, b"what all nodes share")
    }

    fn verify(value: &str, name: &str, now_ms: u64) -> Result<u64, AccessError> {
        UrlSignature::verify(value, &key(), &StreamName::parse(name).unwrap(), now_ms)
    }

    fn signed(now_ms: u64) -> String {
        let (key, stream) = (key(), StreamName::parse("live/a").unwrap());
        let query = UrlSignature::new(&key, &stream, now_ms).to_string();
        query.strip_prefix("sig=").unwrap().to_owned()
    }

    #[test]
    fn signature_is_valid_in_its_window_and_the_next_one() {
        let value = signed(NOW_MS + 59_999);
        assert_eq!(signed(NOW_MS), value, "it is the same for all viewers in the window");
        assert_eq!(verify(&value, "live/a", NOW_MS), Ok(120));
        assert_eq!(verify(&value, "live/a", NOW_MS + 119_999), Ok(0));
        assert_eq!(verify(&value, "live/a", NOW_MS + 120_000), Err(AccessError::SignatureExpired));
        assert_eq!(verify(&value, "live/a", NOW_MS - 1), Ok(120), "the clock of this node is behind");
        assert_eq!(verify(&value, "live/a", NOW_MS - 60_001), Err(AccessError::SignatureInvalid));
        assert_ne!(signed(NOW_MS + 60_000), value);
    }

    #[test]
    fn signature_is_valid_for_its_stream_only() {
        let value = signed(NOW_MS);
        assert_eq!(verify(&value, "live/b", NOW_MS), Err(AccessError::SignatureInvalid));
        assert_eq!(verify(&value, "other/a", NOW_MS), Err(AccessError::SignatureInvalid));
        let other = UrlSignature::verify(
            &value,
            &hmac::Key::new(hmac::HMAC_SHA256, b"another secret"),
            &StreamName::parse("live/a").unwrap(),
            NOW_MS,
        );
        assert_eq!(other, Err(AccessError::SignatureInvalid));
    }

    #[test]
    fn truncated_or_modified_signature_is_refused() {
        let value = signed(NOW_MS);
        for end in 0..value.len() {
            assert!(verify(&value[..end], "live/a", NOW_MS).is_err(), "{end}");
        }
        for at in 0..value.len() {
            for bit in 0..7 {
                let mut bytes = value.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(verify(&changed, "live/a", NOW_MS).is_err(), "{changed}");
            }
        }
        let zeros = "A".repeat(22);
        for garbage in [
            &format!("0{value}"),
            &format!("+{value}"),
            "",
            "~",
            "ä~ä",
            "30000000~",
            &format!("18446744073709551615~{zeros}"),
            &zeros.repeat(9_999),
        ] {
            assert!(verify(garbage, "live/a", NOW_MS).is_err(), "{garbage}");
        }
    }
}
