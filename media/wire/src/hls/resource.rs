//! Names of what a playlist points to, below a folder that is named after the stream's beginning.
//!
//! | name | what |
//! | --- | --- |
//! | `init-1a2b3c4d.mp4` | initialisation segment, by the checksum of its bytes |
//! | `17.m4s` | segment 17 |
//! | `17.3.m4s` | part 3 of segment 17 |

use std::fmt;

/// Something a playlist points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Initialisation segment.
    Init {
        /// [`crate::cmaf::Init::id`].
        id: u32,
    },
    /// A whole segment.
    Segment {
        /// Its media sequence number.
        number: u64,
    },
    /// A part of a segment.
    Part {
        /// The media sequence number of its segment.
        number: u64,
        /// Counted from 0 in the segment.
        part: u32,
    },
}

impl Resource {
    /// Reads a file name; `None` if no playlist of ours could hold it.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(id) = name.strip_prefix("init-").and_then(|n| n.strip_suffix(".mp4")) {
            let legal = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            return legal.then(|| u32::from_str_radix(id, 16).ok()).flatten().map(|id| Self::Init { id });
        }
        let stem = name.strip_suffix(".m4s")?;
        match stem.split_once('.') {
            None => Some(Self::Segment { number: digits(stem)? }),
            Some((number, part)) => {
                Some(Self::Part { number: digits(number)?, part: u32::try_from(digits(part)?).ok()? })
            }
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init { id } => write!(f, "init-{id:08x}.mp4"),
            Self::Segment { number } => write!(f, "{number}.m4s"),
            Self::Part { number, part } => write!(f, "{number}.{part}.m4s"),
        }
    }
}

/// A decimal number as we write it: no sign, no leading zero (one resource has one name, so caches hold it once).
pub(super) fn digits(s: &str) -> Option<u64> {
    let plain = s.bytes().all(|b| b.is_ascii_digit()) && (s == "0" || !s.starts_with('0'));
    if plain { s.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_nothing_else_is() {
        for r in [
            Resource::Init { id: 0x1a },
            Resource::Segment { number: 0 },
            Resource::Part { number: u64::MAX, part: 12 },
        ] {
            assert_eq!(Resource::parse(&r.to_string()), Some(r));
        }
        let bad = [
            "",
            ".m4s",
            "1",
            "01.m4s",
            "+1.m4s",
            "-1.m4s",
            "1..m4s",
            "1.2.3.m4s",
            "1.m4s.m4s",
            "init-1.mp4",
            "init-0000001A.mp4",
            "init-+0000001.mp4",
            "18446744073709551616.m4s",
            "1.4294967296.m4s",
            "١.m4s",
        ];
        for name in bad {
            assert_eq!(Resource::parse(name), None, "{name:?} was accepted");
        }
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics_and_what_is_read_has_one_spelling() {
        for good in ["init-1a2b3c4d.mp4", "17.m4s", "18446744073709551615.4294967295.m4s"] {
            let prefixes = (0..good.len()).map(|end| good[..end].to_owned());
            let flipped = (0..good.len() * 8).map(|i| {
                let mut bytes = good.as_bytes().to_vec();
                bytes[i / 8] ^= 1 << (i % 8);
                String::from_utf8_lossy(&bytes).into_owned()
            });
            for name in prefixes.chain(flipped) {
                assert!(Resource::parse(&name).is_none_or(|r| r.to_string() == name), "{name:?}");
            }
        }
    }
}
