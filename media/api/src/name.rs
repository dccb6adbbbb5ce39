//! The address of a stream, `app/stream_id`, with the rule for what may stand in it.
//!
//! Names come from the network and go into URLs, logs and file names; one rule everywhere keeps them harmless.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `app/stream_id`. Cheap to clone.
///
/// Both parts are 1 to 64 bytes of `A-Z a-z 0-9 _ - .`, and do not begin with a dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName {
    whole: Arc<str>,
    app_len: u8,
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A part is empty or too long.
    #[error("{part} has {len} bytes; 1 to {MAX_PART_BYTES} are allowed")]
    Length {
        /// "app" or "stream id".
        part: &'static str,
        /// Length seen, in bytes.
        len: usize,
    },
    /// A part holds a character outside the set.
    #[error("{part} may hold only letters, digits, '_', '-' and '.', and must not begin with '.'")]
    Character {
        /// "app" or "stream id".
        part: &'static str,
    },
    /// There is no slash between the parts.
    #[error("expected APP/STREAM_ID")]
    NoSlash,
}

/// Bytes in an app or a stream id at most.
pub const MAX_PART_BYTES: usize = 64;

impl StreamName {
    /// Joins two parts.
    ///
    /// # Errors
    /// If either part breaks the rule above.
    pub fn new(app: &str, stream_id: &str) -> Result<Self, NameError> {
        check("app", app)?;
        check("stream id", stream_id)?;
        Ok(Self { whole: format!("{app}/{stream_id}").into(), app_len: app.len() as u8 })
    }

    /// Reads `APP/STREAM_ID`.
    ///
    /// # Errors
    /// If there is no slash or a part breaks the rule.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        let (app, id) = s.split_once('/').ok_or(NameError::NoSlash)?;
        Self::new(app, id)
    }

    /// The app.
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

fn check(part: &'static str, s: &str) -> Result<(), NameError> {
    if s.is_empty() || s.len() > MAX_PART_BYTES {
        return Err(NameError::Length { part, len: s.len() });
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if s.starts_with('.') || !s.bytes().all(legal) {
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
    fn a_name_is_two_harmless_parts() {
        let name = StreamName::parse("live/demo-1.a_B").unwrap();
        assert_eq!((name.app(), name.stream_id(), name.as_str()), ("live", "demo-1.a_B", "live/demo-1.a_B"));
        for bad in ["live", "/x", "live/", "live/a/b", "live/..", "live/.a", "live/a b", "live/ä", "li\nve/a"] {
            assert!(StreamName::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(StreamName::new("live", &"a".repeat(64)).is_ok());
        assert!(StreamName::new("live", &"a".repeat(65)).is_err());
    }

    /// The rule once more, in full.
    fn may_stand(c: char) -> bool {
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.".contains(c)
    }

    /// `part` in both places; `good` if it is one.
    fn check_part(part: &str, good: bool) {
        for (text, app, id) in [(format!("{part}/demo"), part, "demo"), (format!("live/{part}"), "live", part)] {
            match StreamName::parse(&text) {
                Ok(name) => assert!(
                    good && (name.app(), name.stream_id(), name.as_str()) == (app, id, text.as_str()),
                    "{text:?}"
                ),
                Err(e) => assert!(!good, "{text:?}: {e}"),
            }
        }
    }

    #[test]
    fn every_character_that_may_not_stand_in_a_name_is_refused() {
        for c in '\0'..=char::MAX {
            check_part(&c.to_string(), may_stand(c) && c != '.');
        }
    }

    #[test]
    fn every_pair_at_the_ends_of_a_part_is_judged_by_the_rule_up_to_its_last_byte() {
        for (a, b) in ('\0'..='\u{ff}').flat_map(|a| ('\0'..='\u{ff}').map(move |b| (a, b))) {
            for between in [0, 61, 62, 63] {
                let part = format!("{a}{:x<between$}{b}", "");
                check_part(&part, may_stand(a) && a != '.' && may_stand(b) && part.len() <= MAX_PART_BYTES);
            }
        }
    }
}
