//! Heartbeats: what a node reports each time it renews its lease.

use serde::{Deserialize, Serialize};

use crate::StreamName;

/// The changing state of a node, sent every five seconds. Each heartbeat renews the node's lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// Current load.
    pub load: Load,
    /// True if the node accepts no new work because it is shutting down.
    pub draining: bool,
    /// True if the node's own readiness checks pass.
    pub ready: bool,
    /// Viewer counts of this node's streams, most viewers first. The registry keeps the first
    /// [`MAX_WATCHED`].
    pub watched: Vec<StreamViewers>,
}

/// Maximum number of streams in a heartbeat; bounds the size of a node's document.
pub const MAX_WATCHED: usize = 500;

/// Load of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// CPU usage of all cores together, in permille: 0 to 1000.
    pub cpu_permille: u32,
    /// Number of streams published on this node.
    pub streams: u32,
    /// Number of viewers on this node, all protocols.
    pub viewers: u32,
    /// Number of viewers by protocol.
    pub viewers_by: ViewerCounts,
    /// Bits sent in the last full second.
    pub egress_bps: u64,
    /// Bits per second that the node can send; 0 if unknown.
    pub egress_capacity_bps: u64,
}

/// Number of viewers of one stream on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamViewers {
    /// The stream.
    pub name: StreamName,
    /// Number of viewers, all protocols.
    pub viewers: u32,
}

/// Viewers by protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ViewerCounts {
    /// WHEP sessions.
    pub webrtc: u64,
    /// Players that requested a playlist in the last ten seconds (an estimate: HLS has no
    /// sessions).
    pub hls: u64,
    /// RTMP players.
    pub rtmp: u64,
}
