//! The addresses that a running engine listens on, which it writes to `data_dir/engine.json` once
//! all listeners accept connections.
//!
//! With port 0 in the configuration the actual port is known only from this file. `headwaterd
//! doctor` and test tools read it; the daemon of the node receives the same in each
//! [`EngineReport`](super::EngineReport).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// File name inside `data_dir`. Written atomically when the engine starts to serve, removed when it
/// shuts down.
pub const ENDPOINTS_FILE: &str = "engine.json";

/// The listeners of one engine process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Process id of the engine.
    pub pid: u32,
    /// Plain HTTP, unless it is off.
    pub http: Option<SocketAddr>,
    /// HTTPS, unless it is off.
    pub https: Option<SocketAddr>,
    /// SHA-256 fingerprint of the self-signed certificate that HTTPS started with
    /// (`AB:CD:…`); `None` if a certificate is configured or HTTPS is off.
    #[serde(default)]
    pub self_signed_fingerprint: Option<String>,
    /// Plain RTMP, unless it is off.
    pub rtmp: Option<SocketAddr>,
    /// RTMPS, if a certificate is configured.
    pub rtmps: Option<SocketAddr>,
    /// Relay, if there is a cluster secret.
    #[serde(default)]
    pub relay: Option<SocketAddr>,
    /// WebRTC UDP ports, one per worker.
    pub webrtc: Vec<u16>,
    /// `/livez`, `/readyz`, `/metrics`.
    pub health: SocketAddr,
}
