//! What a live stream looks like from outside: in the REST API, on the pages and in the log.

use serde::{Deserialize, Serialize};

use crate::StreamName;
use crate::node::{Load, Watched};

/// One live stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamStatus {
    /// `app/stream_id`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, examples("live/demo")))]
    pub name: StreamName,
    /// Unix time of the first byte, in milliseconds.
    pub started_at_ms: u64,
    /// "rtmp" and so on.
    pub protocol: String,
    /// Video, if there is any yet.
    pub video: Option<VideoStatus>,
    /// Audio, if there is any yet.
    pub audio: Option<AudioStatus>,
    /// Time of the newest frame on the stream's timeline, in milliseconds: how much of it there is.
    #[serde(default)]
    pub media_ms: u64,
    /// Payload bytes received since the start.
    pub received_bytes: u64,
    /// Payload bits received in the last full second.
    pub bitrate_bps: u64,
    /// Who watches now.
    pub viewers: ViewerCounts,
    /// What the publisher should change; empty when all is well.
    pub notices: Vec<Notice>,
}

/// The video of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VideoStatus {
    /// "H264", "H265", "AV1".
    pub codec: String,
    /// RFC 6381 codec string, such as `avc1.64001f`, if the header could be read.
    pub codec_string: Option<String>,
    /// Pixels; 0 if unknown.
    pub width: u32,
    /// Pixels; 0 if unknown.
    pub height: u32,
    /// True if pictures are shown in another order than they are sent.
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
    /// Channels.
    pub channels: u32,
}

/// What came of greeting another node's relay: `/relays` on the health listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Its id, or where its address comes from.
    pub node: String,
    /// Where it was greeted.
    pub address: std::net::SocketAddr,
    /// What is wrong; `None` if it answered and both know the secret.
    pub err: Option<String>,
}

/// How an engine is and what it carries: `/status` on its health listener, for the daemon beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// What `/readyz` says.
    pub ready: bool,
    /// True once it has been told to end.
    pub draining: bool,
    /// True if newcomers are sent elsewhere.
    #[serde(default)]
    pub full: bool,
    /// How busy it is.
    pub load: Load,
    /// Who watches what here, most watched first.
    pub watched: Vec<Watched>,
}

/// Viewers by protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ViewerCounts {
    /// WHEP sessions.
    pub webrtc: u64,
    /// Players that asked for a playlist in the last ten seconds (an estimate: HLS has no sessions).
    pub hls: u64,
    /// RTMP players.
    pub rtmp: u64,
}

/// Something the publisher should change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Notice {
    /// Stable, for programs: `b_frames`, `audio_codec`, …
    pub code: String,
    /// One sentence: what is wrong, and which setting to change.
    pub message: String,
}

impl Notice {
    /// What a publisher with B-frames has to change; the same words in the log, the status and every refusal.
    pub const B_FRAMES: &str = "This stream has B-frames, which browsers cannot play over WebRTC; viewers get LL-HLS \
         instead, with more delay. In OBS: Settings, Output, Output Mode \"Advanced\", Streaming: with x264 set Tune to \
         \"zerolatency\" or write bframes=0 into the x264 options, with NVENC or another hardware encoder set Max B-frames \
         to 0.";
}
