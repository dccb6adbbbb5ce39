//! A live stream as the REST API, the pages and the log show it.

use serde::{Deserialize, Serialize};

use crate::StreamName;
use crate::documents::ViewerCounts;

/// One live stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamStatus {
    /// `app/stream_id`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, examples("live/demo")))]
    pub name: StreamName,
    /// Unix time of the first byte, in milliseconds.
    pub started_at_ms: u64,
    /// Protocol of the publisher: `rtmp`, `srt`, `whip`.
    pub protocol: String,
    /// Video; null before its header.
    pub video: Option<VideoStatus>,
    /// Audio; null before its header.
    pub audio: Option<AudioStatus>,
    /// Duration of the media received, in milliseconds: decoding time of the newest frame, counted
    /// from the first.
    #[serde(default)]
    pub media_ms: u64,
    /// Payload bytes received since the start.
    pub received_bytes: u64,
    /// Payload bits received in the last full second.
    pub bitrate_bps: u64,
    /// Current viewers.
    pub viewers: ViewerCounts,
    /// What the publisher should change; empty if nothing.
    pub notices: Vec<Notice>,
}

/// The video of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VideoStatus {
    /// "H264", "H265", "AV1".
    pub codec: String,
    /// RFC 6381 codec string, such as `avc1.64001f`, if the header could be parsed.
    pub codec_string: Option<String>,
    /// Pixels; 0 if unknown.
    pub width: u32,
    /// Pixels; 0 if unknown.
    pub height: u32,
    /// True if presentation order differs from decoding order.
    pub b_frames: bool,
}

/// The audio of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AudioStatus {
    /// "AAC", "Opus".
    pub codec: String,
    /// RFC 6381 codec string, such as `mp4a.40.2`.
    pub codec_string: Option<String>,
    /// Samples per second.
    pub sample_rate_hz: u32,
    /// Number of channels.
    pub channels: u32,
}

/// A problem that the publisher should fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Notice {
    /// Stable identifier: `b_frames`, `audio_codec`, …
    pub code: String,
    /// One sentence: the problem, and the setting to change.
    pub message: String,
}

impl Notice {
    /// Message for a stream with B-frames. The log, the stream status and every refusal use the
    /// same text.
    pub const B_FRAMES: &str = "This stream has B-frames, which browsers cannot play over WebRTC; viewers get LL-HLS \
         instead, with more delay. In OBS: Settings, Output, Output Mode \"Advanced\", Streaming: with x264 set Tune to \
         \"zerolatency\" or write bframes=0 into the x264 options, with NVENC or another hardware encoder set Max B-frames \
         to 0.";
}
