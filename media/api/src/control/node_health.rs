//! The health report that a daemon writes to its engine's standard input: one JSON object per line,
//! every [`REPORT_INTERVAL_SECS`].
//!
//! It contains what only the daemon knows about the node. `/readyz` includes its checks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Health of the node outside the engine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeHealth {
    /// For each check ([`REGISTERED`], [`LEASE`], [`CLOCK`]) the failure, or `None` if it passes.
    pub checks: BTreeMap<String, Option<String>>,
    /// Bits per second that the machine can send, according to its provider; 0 if unknown.
    pub egress_capacity_bps: u64,
    /// Offset of this machine's clock from the registry's, in milliseconds: positive if it is
    /// ahead, 0 if it agrees or the offset is unknown.
    pub clock_ahead_ms: i64,
    /// Base URL of another node with room for viewers, if one is known.
    pub alternative_url: Option<String>,
}

/// Check: the registry contains this incarnation of the node.
pub const REGISTERED: &str = "registered";
/// Check: the node's lease has been renewed recently.
pub const LEASE: &str = "lease";
/// Check: this machine's clock agrees with the registry's.
pub const CLOCK: &str = "clock";

/// Seconds between two reports. After four intervals without one, the engine considers the daemon
/// disconnected.
pub const REPORT_INTERVAL_SECS: u64 = 2;
