//! What a daemon tells its engine every few seconds, one JSON object a line, on the engine's standard input: how the node
//! stands outside this machine. `/readyz` repeats it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the node stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Per check what is wrong, or nothing if it holds: [`REGISTERED`], [`LEASE`], [`CLOCK`].
    pub checks: BTreeMap<String, Option<String>>,
    /// Bits a second that the machine can send, as its provider says; 0 if nobody says.
    pub egress_capacity_bps: u64,
    /// Milliseconds that this machine's clock is ahead of the registry's; behind if negative, 0 if it agrees or is not known.
    pub clock_ahead_ms: i64,
    /// Base URL of another node that has room for viewers, if one is known.
    pub elsewhere: Option<String>,
}

/// The node is in the registry, as this life.
pub const REGISTERED: &str = "registered";
/// The registry has heard of the node lately.
pub const LEASE: &str = "lease";
/// The clock of this machine agrees with the registry's.
pub const CLOCK: &str = "clock";

/// Seconds between two lines. Four times as long without one, and the daemon is taken for gone.
pub const EVERY_SECS: u64 = 2;
