//! Live streams in the shape of Ant Media's REST v2, limited to fields that have a true value here.
//!
//! Field names and spellings are Ant Media's, so that clients written for it read these answers
//! unchanged. Missing fields are left out on purpose: an invented value is worse than none.

use serde::{Deserialize, Serialize};

/// One live stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Broadcast {
    /// The stream id inside its app.
    pub stream_id: String,
    /// Same as `streamId`: streams have no other name.
    pub name: String,
    /// Always `broadcasting`: only live streams are listed.
    pub status: String,
    /// Always `liveStream`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Protocol of the publisher: `RTMP`, `SRT`, `WebRTC`. Absent if the stream is published on
    /// another node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_type: Option<String>,
    /// Always true: the stream was created by publishing, not by a request to this API.
    pub zombi: bool,
    /// Unix time of its start, in milliseconds.
    pub date: u64,
    /// Unix time of its start, in milliseconds.
    pub start_time: u64,
    /// Unix time of this answer, in milliseconds.
    pub update_time: u64,
    /// Duration of the media received, in milliseconds.
    pub duration: u64,
    /// Media time received per wall-clock time, to three digits: 1 if the publisher keeps up.
    /// Absent in the first second, and if the stream is published on another node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Payload bytes received.
    pub received_bytes: u64,
    /// Payload bits received in the last full second.
    pub bitrate: u64,
    /// Pixels; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// HLS viewers on this node (an estimate: HLS has no sessions).
    pub hls_viewer_count: u64,
    /// WebRTC viewers on this node.
    #[serde(rename = "webRTCViewerCount")]
    pub webrtc_viewer_count: u64,
    /// RTMP players on this node.
    pub rtmp_viewer_count: u64,
}

/// Viewers of one stream on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BroadcastStatistics {
    /// RTMP players.
    #[serde(rename = "totalRTMPWatchersCount")]
    pub rtmp: u64,
    /// HLS viewers (an estimate: HLS has no sessions).
    #[serde(rename = "totalHLSWatchersCount")]
    pub hls: u64,
    /// WebRTC viewers.
    #[serde(rename = "totalWebRTCWatchersCount")]
    pub webrtc: u64,
}

/// Viewers of one app's streams on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppStatistics {
    /// The sum over its streams.
    #[serde(flatten)]
    pub viewers: BroadcastStatistics,
    /// Number of live streams.
    #[serde(rename = "activeLiveStreamCount")]
    pub streams: u64,
}

/// A number of live streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Count {
    /// The number.
    pub number: u64,
}

/// An error, with the field `success` that clients of Ant Media's API read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Refusal {
    /// Always false.
    pub success: bool,
    /// Stable identifier: `stream_not_found`, `bad_request`, …
    pub error: String,
    /// One sentence for people.
    pub message: String,
}
