//! How media is packaged.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// HLS and LL-HLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hls {
    /// Duration of a part, in milliseconds. Shorter parts: less delay, more requests.
    pub part_ms: NonZeroU32,
    /// Target duration of a segment, in milliseconds; segments end only at key frames.
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
