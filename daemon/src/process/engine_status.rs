//! Fetches the status of a running engine from its health listener, for heartbeats and metrics.
//!
//! Never decides whether the engine hangs: network peers reach that listener too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use headwater_api::control::EngineStatus;

use crate::http_client;

/// Fetches the engine's status from its health listener; `None` if it does not answer.
pub(crate) async fn fetch_status(health: SocketAddr) -> Option<EngineStatus> {
    let answer = http_client::get(dial_address(health), "/status", STATUS_TIMEOUT).await.ok()?;
    serde_json::from_slice(answer.body()).ok()
}

/// Returns the address at which a listener of this machine is reached.
pub(crate) fn dial_address(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(if listener.is_ipv4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        });
    }
    listener
}

/// For one request.
const STATUS_TIMEOUT: Duration = Duration::from_secs(4);
