//! The name of a stream, `app/stream_id`, and the rule for its characters.
//!
//! Names come from the network and are used in URLs, logs and file names. One rule everywhere keeps
//! them harmless.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `app/stream_id`. Cheap to clone.
///
/// The app has 1 to 64 bytes and the stream id 1 to 128 bytes of `A-Z a-z 0-9 _ - .`. Neither
/// starts with `.` or `-`: programs that get the name as an argument must not take it for an
/// option.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName {
    whole: Arc<str>,
    app_len: u8,
}

/// The rule that a name violates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A part is empty or too long.
    #[error("{part} has {len} bytes; 1 to {limit} are allowed")]
    Length {
        /// "app" or "stream id".
        part: &'static str,
        /// Length seen, in bytes.
        len: usize,
        /// Maximum length, in bytes.
        limit: usize,
    },
    /// A part contains an illegal character.
    #[error("{part} may contain only letters, digits, '_', '-' and '.', and must start with neither '.' nor '-'")]
    Character {
        /// "app" or "stream id".
        part: &'static str,
    },
    /// There is no slash between the parts.
    #[error("expected APP/STREAM_ID")]
    NoSlash,
}

/// Maximum length of an app, in bytes.
pub const MAX_APP_BYTES: usize = 64;
/// Maximum length of a stream id, in bytes. Other systems join two UUIDs (73 bytes) or use a hash
/// in hexadecimal digits (128 bytes).
pub const MAX_STREAM_ID_BYTES: usize = 128;

impl StreamName {
    /// Joins two parts.
    ///
    /// # Errors
    /// If either part violates the rule above.
    pub fn new(app: &str, stream_id: &str) -> Result<Self, NameError> {
        check_app(app)?;
        check_stream_id(stream_id)?;
        Ok(Self { whole: format!("{app}/{stream_id}").into(), app_len: app.len() as u8 })
    }

    /// Parses `APP/STREAM_ID`.
    ///
    /// # Errors
    /// If there is no slash or a part violates the rule.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        let (app, id) = s.split_once('/').ok_or(NameError::NoSlash)?;
        Self::new(app, id)
    }

    /// The part before the slash.
    pub fn app(&self) -> &str {
        &self.whole[..usize::from(self.app_len)]
    }

    /// The stream id inside the app.
    pub fn stream_id(&self) -> &str {
        &self.whole[usize::from(self.app_len) + 1..]
    }

    /// `app/stream_id`.
    pub fn as_str(&self) -> &str {
        &self.whole
    }
}

/// Checks the name of an app.
///
/// # Errors
/// The rule that it violates.
pub fn check_app(app: &str) -> Result<(), NameError> {
    check("app", app, MAX_APP_BYTES)
}

/// Checks the id of a stream inside its app.
///
/// # Errors
/// The rule that it violates.
pub fn check_stream_id(stream_id: &str) -> Result<(), NameError> {
    check("stream id", stream_id, MAX_STREAM_ID_BYTES)
}

fn check(part: &'static str, s: &str, limit: usize) -> Result<(), NameError> {
    if s.is_empty() || s.len() > limit {
        return Err(NameError::Length { part, len: s.len(), limit });
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if s.starts_with(['.', '-']) || !s.bytes().all(legal) {
        return Err(NameError::Character { part });
    }
    Ok(())
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.whole, f)
    }
}

impl Serialize for StreamName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.whole)
    }
}

impl<'de> Deserialize<'de> for StreamName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = std::borrow::Cow::<str>::deserialize(d)?;
        Self::parse(&s).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_has_two_parts_of_legal_characters() {
        let name = StreamName::parse("live/demo-1.a_B").unwrap();
        assert_eq!((name.app(), name.stream_id(), name.as_str()), ("live", "demo-1.a_B", "live/demo-1.a_B"));
        for bad in [
            "live", "/x", "live/", "live/a/b", "live/..", "live/.a", "live/-a", "-live/a", "live/-", "live/a b",
            "live/ä", "li\nve/a",
        ] {
            assert!(StreamName::parse(bad).is_err(), "{bad:?} was accepted");
        }
        let name = |app: usize, id: usize| StreamName::new(&"a".repeat(app), &"b".repeat(id));
        assert_eq!(name(64, 128).unwrap().stream_id().len(), 128);
        assert!(name(65, 1).is_err() && name(1, 129).is_err());
    }

    /// The rule, spelled out independently.
    fn is_legal(c: char) -> bool {
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.".contains(c)
    }

    /// Parses `part` as an app and as a stream id; both must succeed if it is `legal`, else fail.
    fn check_part(part: &str, legal: bool) {
        for (text, app, id) in [(format!("{part}/demo"), part, "demo"), (format!("live/{part}"), "live", part)] {
            match StreamName::parse(&text) {
                Ok(name) => assert!(
                    legal && (name.app(), name.stream_id(), name.as_str()) == (app, id, text.as_str()),
                    "{text:?}"
                ),
                Err(e) => assert!(!legal, "{text:?}: {e}"),
            }
        }
    }

    #[test]
    fn every_illegal_character_is_refused() {
        for c in '\0'..=char::MAX {
            check_part(&c.to_string(), is_legal(c) && !matches!(c, '.' | '-'));
        }
    }

    #[test]
    fn first_and_last_character_of_a_part_follow_the_rule() {
        for (a, b) in ('\0'..='\u{ff}').flat_map(|a| ('\0'..='\u{ff}').map(move |b| (a, b))) {
            for between in [0, 61, 62] {
                let part = format!("{a}{:x<between$}{b}", "");
                check_part(&part, is_legal(a) && !matches!(a, '.' | '-') && is_legal(b));
            }
        }
    }
}
