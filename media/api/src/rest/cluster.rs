//! The streams of a cluster, as the REST API and the command line list them.

use serde::{Deserialize, Serialize};

/// A live stream of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ClusterStream {
    /// `app/stream_id`.
    pub name: String,
    /// Id of the node it is published to.
    pub origin: String,
    /// Protocol of the publisher: `rtmp`, `srt`, `whip`.
    pub protocol: String,
    /// Milliseconds since it started.
    pub age_ms: u64,
    /// Viewers on all nodes.
    pub viewers: u64,
    /// Viewers by node, most first; nodes without a viewer are omitted.
    pub viewers_by_node: Vec<NodeViewers>,
}

/// Viewers of one stream on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeViewers {
    /// The node's id.
    pub node: String,
    /// Viewers over all protocols.
    pub viewers: u64,
}
