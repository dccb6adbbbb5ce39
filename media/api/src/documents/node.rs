//! Nodes: what a node registers, and what the registry returns about it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Heartbeat;
use crate::config::Role;

/// One node, as it registers itself. What changes while it runs is in [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDocument {
    /// Unique in the cluster: the instance id on EC2.
    pub id: String,
    /// Role of the node.
    pub role: Role,
    /// Addresses that viewers can reach, public ones first.
    pub addresses: Vec<IpAddr>,
    /// Addresses at which other nodes reach its relay, best first; empty if it runs none.
    #[serde(default)]
    pub relay: Vec<SocketAddr>,
    /// Base URL of its web server for viewers and for redirects by other nodes
    /// (`https://host:5443`), if it has one.
    #[serde(default)]
    pub url: Option<String>,
    /// The value of the `headwater:node-group` tag; empty without one.
    #[serde(default)]
    pub group: String,
    /// Availability zone; empty outside a cloud.
    #[serde(default)]
    pub zone: String,
    /// Machine type; empty outside a cloud.
    #[serde(default)]
    pub instance_type: String,
    /// Machine image; empty outside a cloud.
    #[serde(default)]
    pub image: String,
    /// Version of the software.
    pub version: String,
    /// Unix time of its start by its own clock, in milliseconds; 0 if unknown.
    #[serde(default)]
    pub started_at_ms: u64,
}

/// Orders the incarnations of one node: a later incarnation has a greater epoch, even after the
/// node's document was removed.
///
/// Assigned by the registry on registration, from the registry's clock: Unix time in milliseconds,
/// or one more than the previous epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootEpoch(pub u64);

impl fmt::Display for BootEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One incarnation of one node, which is the holder of a lease. The daemon gets it by registering
/// and passes it to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeIncarnation {
    /// [`NodeDocument::id`].
    pub node: String,
    /// Distinguishes this incarnation from the others of the node.
    pub epoch: BootEpoch,
}

/// A node as the registry returns it. Ages are measured by the registry's clock; no node's clock
/// matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The document of the latest registration.
    #[serde(flatten)]
    pub node: NodeDocument,
    /// Epoch of the latest incarnation.
    pub boot_epoch: BootEpoch,
    /// The latest heartbeat; all zero before the first one.
    #[serde(flatten)]
    pub heartbeat: Heartbeat,
    /// Milliseconds since registration.
    pub age_ms: u64,
    /// Milliseconds since the last heartbeat or registration.
    pub silent_ms: u64,
    /// True until the node's lease expires.
    pub alive: bool,
    /// True once an operator has requested that this incarnation drains.
    #[serde(default, rename = "drain_asked")]
    pub drain_requested: bool,
}

impl NodeRecord {
    /// The incarnation that this record describes.
    pub fn incarnation(&self) -> NodeIncarnation {
        NodeIncarnation { node: self.node.id.clone(), epoch: self.boot_epoch }
    }
}
