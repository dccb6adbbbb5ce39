//! Identity, environment and limits of a node.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Accepts publishers and transcodes.
    Origin,
    /// Serves viewers, and pulls streams from origins.
    Edge,
    /// Runs the MongoDB of its cluster, and no engine.
    Registry,
    /// Origin and edge in one, with an embedded registry.
    #[default]
    Standalone,
}

impl Role {
    /// The spelling used in tags, files and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Edge => "edge",
            Self::Registry => "registry",
            Self::Standalone => "standalone",
        }
    }
}

/// Identity and folders of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Its role; written by the daemon.
    pub role: Role,
    /// Its id, unique in the cluster: the instance id on EC2.
    pub id: String,
    /// Epoch of this incarnation of the node, as assigned by the registry on registration; written
    /// by the daemon.
    pub boot_epoch: Option<u64>,
    /// Folder for everything that must survive a restart. Must be writable.
    pub data_dir: PathBuf,
    /// Addresses that viewers can reach, public ones first; used in ICE candidates. If empty: the
    /// addresses of the network interfaces.
    pub addresses: Vec<IpAddr>,
    /// Base URL of its web server for viewers and for redirects by other nodes
    /// (`https://media-1.example.com:5443`). Default: its first address and the HTTP port, or the
    /// HTTPS port if plain HTTP is off.
    pub url: Option<String>,
    /// Maximum number of live streams; further publishers are refused.
    pub max_streams: NonZeroUsize,
    /// Maximum duration of a drain, in milliseconds; the remaining connections are closed after it.
    pub drain_ms: NonZeroU32,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            role: Role::default(),
            id: "local".to_owned(),
            boot_epoch: None,
            data_dir: PathBuf::from("/var/lib/headwater"),
            addresses: Vec::new(),
            url: None,
            max_streams: const { NonZeroUsize::new(1_000).expect("a literal above zero") },
            drain_ms: const { NonZeroU32::new(10_000).expect("a literal above zero") },
        }
    }
}

/// EC2 instance metadata, which the daemon queries before anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// Address of the metadata service.
    pub endpoint: SocketAddr,
    /// True: the node does not start without it. False: without it the machine is treated as one
    /// outside a cloud, unless its hardware is EC2's, on which metadata is always required.
    pub required: bool,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { endpoint: SocketAddr::from(([169, 254, 169, 254], 80)), required: false }
    }
}

/// Limits above which the node is full: new publishers and viewers are redirected or refused,
/// existing connections continue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Maximum number of viewers with a session (WebRTC and RTMP together). HLS players have none:
    /// their estimated number does not count here, and [`Http`](super::Http) limits their
    /// connections.
    pub max_viewers: NonZeroUsize,
    /// Egress capacity for viewers, in megabits per second. Default: the baseline bandwidth of the
    /// EC2 instance type, else the speed of the network interface; if neither is known, egress is
    /// not limited.
    pub egress_mbps: Option<NonZeroU32>,
    /// Used egress capacity at which the node is full, in percent. 100 or more: never.
    pub egress_percent: NonZeroU32,
    /// CPU usage of all cores together over the last five seconds at which the node is full, in
    /// percent. 100 or more: never. If the file does not set it, the daemon writes 90 on EC2, where
    /// nothing else runs on the machine.
    pub cpu_percent: NonZeroU32,
    /// Share of one client address (IPv6: /64 network) in each pool, in percent: connections,
    /// sessions, offers, stream names. Enforced while more than half of the pool is taken. 100 or
    /// more: never. Loopback and trusted proxies are exempt.
    pub client_share_percent: NonZeroU32,
    /// Free space in `data_dir` below which the node is not ready, in megabytes. 0: no limit.
    pub min_free_mb: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_viewers: const { NonZeroUsize::new(20_000).expect("a literal above zero") },
            egress_mbps: None,
            egress_percent: const { NonZeroU32::new(90).expect("a literal above zero") },
            cpu_percent: const { NonZeroU32::new(100).expect("a literal above zero") },
            client_share_percent: const { NonZeroU32::new(25).expect("a literal above zero") },
            min_free_mb: 100,
        }
    }
}
