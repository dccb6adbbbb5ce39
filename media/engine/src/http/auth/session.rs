//! The session cookie: a signed value with user, expiry, password fingerprint and id. The server
//! stores only the ids of the sessions that a sign-out has ended.
//!
//! `NAME.EXPIRES.PASSWORD.ID.SIGNATURE`, where NAME and SIGNATURE are base64url without padding,
//! EXPIRES is Unix time in seconds, PASSWORD is the fingerprint of the password hash at the login,
//! so that a new password ends all sessions, and ID is random.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use headwater_api::secret::Secret;
use ring::digest;

use super::key::SessionKey;

/// The content of a valid session cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// Name of the user.
    pub user: String,
    /// Unix time, in seconds.
    pub expires_s: u64,
    /// [`fingerprint`] of the password's hash.
    pub password_fingerprint: String,
    /// Unique.
    pub id: String,
}

impl Session {
    /// Returns the signed cookie value.
    pub(super) fn seal(&self, key: &SessionKey) -> String {
        let Self { user, expires_s, password_fingerprint, id } = self;
        let text = format!("{}.{expires_s}.{password_fingerprint}.{id}", BASE64.encode(user));
        let tag = key.sign(text.as_bytes());
        format!("{text}.{}", BASE64.encode(tag.as_ref()))
    }

    /// Parses a cookie value; `None` if its signature is invalid or it has expired.
    pub(super) fn open(value: &str, key: &SessionKey, now_s: u64) -> Option<Self> {
        if value.len() > MAX_COOKIE_BYTES {
            return None;
        }
        let (text, tag) = value.rsplit_once('.')?;
        if !key.verify(text.as_bytes(), &BASE64.decode(tag).ok()?) {
            return None;
        }
        let mut fields = text.split('.');
        let user = String::from_utf8(BASE64.decode(fields.next()?).ok()?).ok()?;
        let expires_s = fields.next()?.parse().ok().filter(|expires_s| now_s < *expires_s)?;
        let (password_fingerprint, id) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        fields.next().is_none().then_some(Self { user, expires_s, password_fingerprint, id })
    }
}

/// Identifies a password hash without revealing it.
pub(super) fn fingerprint(password_hash: &Secret) -> String {
    let digest = digest::digest(&digest::SHA256, password_hash.reveal().as_bytes());
    BASE64.encode(&digest.as_ref()[..12])
}

/// A random session id.
pub(super) fn random_id() -> String {
    BASE64.encode(rand::random::<[u8; 12]>())
}

/// Lifetime of a session, in seconds.
pub(super) const LIFETIME_S: u64 = 12 * 60 * 60;
/// Maximum size of a cookie value; valid ones have about 100 bytes.
const MAX_COOKIE_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            user: "ad.min ü".to_owned(),
            expires_s: 1_000,
            password_fingerprint: fingerprint(&Secret::new("$argon2id$x")),
            id: "vQIVYkITyjc2XtT7".to_owned(),
        }
    }

    #[test]
    fn session_is_valid_until_it_expires_on_every_node_with_the_key() {
        let key = SessionKey::from_secret(b"what all nodes share");
        let value = session().seal(&key);
        assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{value}");
        let other_node = SessionKey::from_secret(b"what all nodes share");
        assert_eq!(Session::open(&value, &other_node, 999), Some(session()));
        assert_eq!(Session::open(&value, &key, 1_000), None);
        assert_eq!(Session::open(&value, &SessionKey::from_secret(b"what another cluster has"), 0), None);
    }

    #[test]
    fn truncated_or_modified_session_is_refused() {
        let key = SessionKey::from_secret(b"what all nodes share");
        let value = session().seal(&key);
        for end in 0..value.len() {
            assert_eq!(Session::open(&value[..end], &key, 0), None, "{end}");
        }
        for at in 0..value.len() {
            let mut bytes = value.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last base64 character contains unused bits.
            assert!(Session::open(&changed, &key, 0).is_none() || at == value.len() - 1, "{changed}");
        }
        for garbage in ["", ".", "...", "a.b.c.d", &".".repeat(600)] {
            assert_eq!(Session::open(garbage, &key, 0), None);
        }
    }
}
