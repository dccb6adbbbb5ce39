//! Live streams in the shape of Ant Media's REST v2, as far as every field has a true value here.
//!
//! Field names and spellings are theirs, so that programs written for it read these answers unchanged. What is missing was
//! left out on purpose: a made-up value is worse than none.

use serde::{Deserialize, Serialize};

/// One live stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Broadcast {
    /// The stream id inside its app.
    pub stream_id: String,
    /// The same: streams have no other name.
    pub name: String,
    /// Always `broadcasting`: what is not live is not listed.
    pub status: String,
    /// Always `liveStream`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How it is published: `RTMP`, `SRT`, `WebRTC`. Not there if another node publishes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_type: Option<String>,
    /// Always true: it began by being published, not by a request to this API.
    pub zombi: bool,
    /// Unix time of its beginning, in milliseconds.
    pub date: u64,
    /// Unix time of its beginning, in milliseconds.
    pub start_time: u64,
    /// Unix time of this answer, in milliseconds.
    pub update_time: u64,
    /// Media received, in milliseconds.
    pub duration: u64,
    /// Media received per time passed, to three digits: 1 if the publisher keeps up. Not there in the first second, and if
    /// another node publishes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Payload bytes received.
    pub received_bytes: u64,
    /// Payload bits received in the last full second.
    pub bitrate: u64,
    /// Pixels; not there while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels; not there while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Viewers over HLS here (an estimate: it has no sessions).
    pub hls_viewer_count: u64,
    /// Viewers over WebRTC here.
    #[serde(rename = "webRTCViewerCount")]
    pub webrtc_viewer_count: u64,
    /// Players over RTMP here.
    pub rtmp_viewer_count: u64,
}

/// Who watches one stream here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BroadcastStatistics {
    /// Players over RTMP.
    #[serde(rename = "totalRTMPWatchersCount")]
    pub rtmp: u64,
    /// Viewers over HLS (an estimate: it has no sessions).
    #[serde(rename = "totalHLSWatchersCount")]
    pub hls: u64,
    /// Viewers over WebRTC.
    #[serde(rename = "totalWebRTCWatchersCount")]
    pub webrtc: u64,
}

/// Who watches the streams of one app here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppStatistics {
    /// The sum over its streams.
    #[serde(flatten)]
    pub viewers: BroadcastStatistics,
    /// How many streams there are.
    #[serde(rename = "activeLiveStreamCount")]
    pub streams: u64,
}

/// A number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Count {
    /// How many.
    pub number: u64,
}

/// A refusal, with the fields that this API's clients read beside ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Refusal {
    /// Always false.
    pub success: bool,
    /// Stable, for programs: `stream_not_found`, `bad_request`, …
    pub error: String,
    /// One sentence, for people.
    pub message: String,
}
