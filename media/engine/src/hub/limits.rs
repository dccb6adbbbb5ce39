//! The limits of a hub.

use headwater_wire::MediaTime;

/// Limits of a hub.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of live streams.
    pub max_streams: usize,
    /// Maximum number of frames kept per stream.
    pub depth_frames: usize,
    /// Maximum number of payload bytes kept per stream.
    pub depth_bytes: usize,
    /// Minimum duration of a segment, if key frames permit.
    pub segment_duration: MediaTime,
    /// Preferred duration of a part.
    pub part_duration: MediaTime,
    /// Number of finished segments kept for nodes that join a stream late, within the
    /// two limits above.
    pub history_segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // 2,000 frames hold a GOP of 20 s at 60 video frames and 43 audio packets per second; 32
        // MiB hold 12 s at 20 Mbit/s.
        Self {
            max_streams: 1_000,
            depth_frames: 2_000,
            depth_bytes: 32 << 20,
            segment_duration: MediaTime::from_ms(2_000),
            part_duration: MediaTime::from_ms(200),
            history_segments: 8,
        }
    }
}
