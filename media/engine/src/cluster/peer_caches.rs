//! Cached answers of the registry about other nodes: their groups, the edges of a group, and
//! whether a node is available.
//!
//! Must not know how a query is made.

use std::sync::Arc;
use std::time::Duration;

use headwater_api::documents::NodeRecord;

use super::query_cache::{CachePolicy, QueryCache};

/// Cached answers about other nodes.
#[derive(Debug)]
pub(super) struct PeerCaches {
    /// Group name, by node id.
    pub(super) group_of_node: QueryCache<String>,
    /// Edges, by group name.
    pub(super) edges_of_group: QueryCache<Arc<Vec<NodeRecord>>>,
    /// By node id: true if the node is listed, alive and not draining.
    pub(super) availability: QueryCache<bool>,
}

impl Default for PeerCaches {
    fn default() -> Self {
        Self {
            group_of_node: QueryCache::new(GROUP_POLICY),
            edges_of_group: QueryCache::new(EDGE_POLICY),
            availability: QueryCache::new(AVAILABILITY_POLICY),
        }
    }
}

impl PeerCaches {
    /// Invalidates the edges after a source was lost: it may have been the group's edge.
    pub(super) fn invalidate(&self) {
        self.edges_of_group.invalidate();
    }
}

/// A node's group is a tag, which hardly ever changes.
const GROUP_POLICY: CachePolicy = CachePolicy { max_age: Duration::from_secs(60), query_interval: Duration::ZERO };
/// Invalidated earlier when a source was lost.
const EDGE_POLICY: CachePolicy =
    CachePolicy { max_age: Duration::from_secs(15), query_interval: Duration::from_secs(1) };
/// Pages must learn soon that their node drains. Clients choose the node ids, so the rate of
/// queries is limited.
const AVAILABILITY_POLICY: CachePolicy =
    CachePolicy { max_age: Duration::from_secs(2), query_interval: Duration::from_secs(1) };
