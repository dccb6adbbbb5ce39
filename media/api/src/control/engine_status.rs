//! What the engine's health listener returns to the daemon of its node.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::documents::{Load, StreamViewers};

/// State and load of an engine: the body of `/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// True if `/readyz` answers 200.
    pub ready: bool,
    /// True once the engine has begun to shut down.
    pub draining: bool,
    /// True if new publishers and viewers are redirected or refused.
    #[serde(default)]
    pub full: bool,
    /// Current load.
    pub load: Load,
    /// Viewer counts of this node's streams, most viewers first.
    pub watched: Vec<StreamViewers>,
}

/// Result of probing another node's relay: an item of `/relays`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Id of the node, or the setting that its address comes from.
    pub node: String,
    /// Address that was probed.
    pub address: SocketAddr,
    /// The failure; `None` if the relay answered and both nodes have the same secret.
    pub err: Option<String>,
}
