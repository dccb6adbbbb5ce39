//! File names of the resources in a playlist, in a folder named after the start time of the stream
//! generation.
//!
//! | name | resource |
//! | --- | --- |
//! | `init-1a2b3c4d.mp4` | initialization segment, named by the CRC-32 of its bytes |
//! | `17.m4s` | segment 17 |
//! | `17.3.m4s` | part 3 of segment 17 |

use std::fmt;

/// A resource that a playlist refers to. `Display` writes its file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// An initialization segment.
    Init {
        /// See [`crate::cmaf::Init::id`].
        id: u32,
    },
    /// A whole segment.
    Segment {
        /// Media sequence number of the segment.
        number: u64,
    },
    /// A part of a segment.
    Part {
        /// Media sequence number of its segment.
        number: u64,
        /// Index of the part in its segment, from 0.
        part: u32,
    },
}

impl Resource {
    /// Parses a file name. Returns `None` for every name that `Display` does not produce.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(id) = name.strip_prefix("init-").and_then(|n| n.strip_suffix(".mp4")) {
            let is_hex = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            return is_hex.then(|| u32::from_str_radix(id, 16).ok()).flatten().map(|id| Self::Init { id });
        }
        let stem = name.strip_suffix(".m4s")?;
        match stem.split_once('.') {
            None => Some(Self::Segment { number: parse_decimal(stem)? }),
            Some((number, part)) => {
                Some(Self::Part { number: parse_decimal(number)?, part: u32::try_from(parse_decimal(part)?).ok()? })
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

/// Parses a decimal number without sign or leading zeros. Each resource has exactly one name, so
/// that caches store it once.
pub(super) fn parse_decimal(s: &str) -> Option<u64> {
    let canonical = s.bytes().all(|b| b.is_ascii_digit()) && (s == "0" || !s.starts_with('0'));
    if canonical { s.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_display_produces_are_parsed() {
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
    fn mutated_names_never_panic_and_parse_only_in_canonical_form() {
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
