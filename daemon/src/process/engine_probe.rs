//! Probes a running engine: reads its listeners from its file, then polls `/readyz` until it is
//! ready, then `/livez`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_api::control::{CLOCK, EngineStatus, LEASE, REGISTERED};
use headwater_api::control::{ENDPOINTS_FILE, Endpoints};
use headwater_api::error::Chain;
use serde::Deserialize;

use crate::http_client;
use crate::process::engine_state::Event;

/// Probes one engine process.
#[derive(Debug)]
pub(crate) struct Probe {
    file: PathBuf,
    pid: u32,
}

impl Probe {
    /// A probe of the process `pid`, which writes its listeners to a file in `data_dir`.
    pub(crate) fn new(data_dir: &Path, pid: u32) -> Self {
        Self { file: data_dir.join(ENDPOINTS_FILE), pid }
    }

    /// Waits for the interval, probes once, and returns the result. `serving`: the engine has been
    /// ready before.
    pub(crate) async fn next_event(&self, serving: bool) -> Event {
        tokio::time::sleep(if serving { LIVE_INTERVAL } else { READY_INTERVAL }).await;
        let Some(endpoints) = self.endpoints() else {
            return Event::Unhealthy("its listeners are not known yet".to_owned());
        };
        let (path, yes) = if serving { ("/livez", Event::Live) } else { ("/readyz", Event::Ready) };
        match http_client::get(dial_address(endpoints.health), path, PROBE_TIMEOUT).await {
            Ok(answer) if answer.status().is_success() || (!serving && only_registry_checks_fail(answer.body())) => yes,
            Ok(answer) => {
                let text = String::from_utf8_lossy(answer.body()).into_owned();
                Event::Unhealthy(format!("{path} answers {}: {}", answer.status().as_u16(), text.trim()))
            }
            Err(e) => Event::Unhealthy(Chain(&e).to_string()),
        }
    }

    /// Reads the listeners of this process; `None` until it has written them.
    pub(crate) fn endpoints(&self) -> Option<Endpoints> {
        let endpoints: Endpoints = serde_json::from_slice(&std::fs::read(&self.file).ok()?).ok()?;
        (endpoints.pid == self.pid).then_some(endpoints)
    }
}

/// True if only checks outside the engine fail: a new process would not pass them either.
fn only_registry_checks_fail(readiness: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Readiness {
        checks: BTreeMap<String, String>,
    }
    let Ok(readiness) = serde_json::from_slice::<Readiness>(readiness) else { return false };
    let mut failing =
        readiness.checks.iter().filter(|(_, result)| *result != "ok").map(|(name, _)| name.as_str()).peekable();
    failing.peek().is_some() && failing.all(|name| [REGISTERED, LEASE, CLOCK].contains(&name))
}

/// Fetches the engine's status from its health listener; `None` if it does not answer.
pub(crate) async fn fetch_status(health: SocketAddr) -> Option<EngineStatus> {
    let answer = http_client::get(dial_address(health), "/status", PROBE_TIMEOUT).await.ok()?;
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

/// Interval while it starts, which is also the delay that a start may gain.
const READY_INTERVAL: Duration = Duration::from_millis(20);
/// Interval while it serves.
const LIVE_INTERVAL: Duration = Duration::from_secs(2);
/// For one request. Long, because a wrong verdict costs the viewers their engine.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_engine_is_not_blamed_for_an_unreachable_registry() {
        let check =
            |text: &str, expected: bool| assert_eq!(only_registry_checks_fail(text.as_bytes()), expected, "{text}");
        check(r#"{"ready":false,"checks":{"rtmp":"ok","lease":"no answer","clock":"3600 s ahead"}}"#, true);
        check(r#"{"ready":false,"checks":{"rtmp":"does not answer","lease":"no answer"}}"#, false);
        check(r#"{"ready":true,"checks":{"rtmp":"ok"}}"#, false);
        check("gateway timeout", false);
    }
}
