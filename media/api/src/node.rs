//! The documents that describe a node and an app in the registry.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::Role;

/// One node, as it registers itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDocument {
    /// Unique in the cluster.
    pub id: String,
    /// What it does.
    pub role: Role,
    /// Addresses viewers can reach, public ones first.
    pub addresses: Vec<IpAddr>,
    /// Version of the software.
    pub version: String,
    /// Unix time of this boot, in milliseconds.
    pub booted_at_ms: u64,
}

/// One app: a namespace of streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppDocument {
    /// First part of a stream's name.
    pub name: String,
}

/// The apps that exist from the start.
pub const DEFAULT_APPS: [&str; 2] = ["live", "LiveApp"];
