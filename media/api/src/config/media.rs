//! How media is packaged.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// HLS and LL-HLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hls {
    /// Duration of a part, in milliseconds. Shorter parts: less delay, more requests. PART-TARGET
    /// is 10% more, because parts end between frames.
    pub part_ms: NonZeroU32,
    /// Minimum duration of a segment, in milliseconds; segments end at key frames.
    /// EXT-X-TARGETDURATION is the longer of this and the first GOP (at most 10 s), and constant: a
    /// longer GOP later is cut.
    pub segment_ms: NonZeroU32,
    /// Number of complete segments in the playlist.
    pub window: NonZeroU32,
}

impl Default for Hls {
    fn default() -> Self {
        const fn nz(n: u32) -> NonZeroU32 {
            NonZeroU32::new(n).expect("a literal above zero")
        }
        Self { part_ms: nz(200), segment_ms: nz(2_000), window: nz(6) }
    }
}
