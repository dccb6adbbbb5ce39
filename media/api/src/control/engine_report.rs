//! The report that an engine sends to its daemon: one JSON object per line, on the socket that is
//! the engine's standard input. No network peer can reach that socket.
//!
//! A report shows that the engine runs tasks; the daemon restarts an engine that sends none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Endpoints;

/// State of a running engine. Sent from its start on, every [`ENGINE_REPORT_INTERVAL_SECS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineReport {
    /// The listeners, all of which are open; `None` while the engine starts.
    pub endpoints: Option<Endpoints>,
    /// The failing checks of the engine's own parts (listeners, workers, loop-back test), by name,
    /// with the reason. Nothing that depends on the disk, the registry, the clock or a peer.
    pub failing: BTreeMap<String, String>,
}

/// Seconds between two reports.
pub const ENGINE_REPORT_INTERVAL_SECS: u64 = 1;
