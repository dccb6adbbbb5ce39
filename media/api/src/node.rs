//! The documents that describe a node in the registry: what it says once, what it says with each heartbeat, and what
//! the registry makes of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::StreamName;
use crate::config::Role;
use crate::status::ViewerCounts;

/// One node, as it registers itself. What changes while it lives is in [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDocument {
    /// Unique in the cluster: the instance id on EC2.
    pub id: String,
    /// What it does.
    pub role: Role,
    /// Addresses viewers can reach, public ones first.
    pub addresses: Vec<IpAddr>,
    /// Where other nodes reach its relay, best first; empty if it serves none.
    #[serde(default)]
    pub relay: Vec<SocketAddr>,
    /// Base URL of its web server for viewers and for other nodes' hints (`https://host:5443`), if there is one.
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

/// Orders the lives of one node: a later life has a greater epoch, even after its document was removed.
///
/// The registry gives it on registration, from its own clock: Unix time in milliseconds, or one more than the epoch before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootEpoch(pub u64);

impl fmt::Display for BootEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of one node: who holds a lease. The daemon gets it by registering and hands it to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Life {
    /// [`NodeDocument::id`].
    pub node: String,
    /// Which of its lives.
    pub epoch: BootEpoch,
}

/// What a node says every five seconds; saying it renews its lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// How busy it is.
    pub load: Load,
    /// True if it takes no new work because it will end.
    pub draining: bool,
    /// True if its own readiness checks hold.
    pub ready: bool,
    /// Who watches what here, most watched first; the registry keeps the first [`MAX_WATCHED`].
    pub watched: Vec<Watched>,
}

/// Streams in a heartbeat at most, so that a document stays small.
pub const MAX_WATCHED: usize = 500;

/// How busy a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Busy part of all cores together, in thousandths: 0 to 1000.
    pub cpu_permille: u32,
    /// Streams published here.
    pub streams: u32,
    /// Viewers here, all protocols.
    pub viewers: u32,
    /// The same by protocol.
    pub viewers_by: ViewerCounts,
    /// Bits sent in the last full second.
    pub egress_bps: u64,
    /// Bits a second it can send; 0 if unknown.
    pub egress_capacity_bps: u64,
}

/// The viewers of one stream on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// The stream.
    pub name: StreamName,
    /// How many, all protocols.
    pub viewers: u32,
}

/// A node as the registry knows it. Ages are by the registry's clock, so that no node's clock matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What it said when it registered.
    #[serde(flatten)]
    pub node: NodeDocument,
    /// Its latest life.
    pub boot_epoch: BootEpoch,
    /// What it said last; all zero until its first heartbeat.
    #[serde(flatten)]
    pub heartbeat: Heartbeat,
    /// Milliseconds since it registered.
    pub age_ms: u64,
    /// Milliseconds since it was last heard of.
    pub silent_ms: u64,
    /// True while its lease lasts.
    pub alive: bool,
    /// True once an operator has asked this life of it to drain.
    #[serde(default)]
    pub drain_asked: bool,
}

impl NodeRecord {
    /// The life this record is of.
    pub fn life(&self) -> Life {
        Life { node: self.node.id.clone(), epoch: self.boot_epoch }
    }
}
