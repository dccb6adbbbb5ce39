//! Asks a running engine how it is: where it listens from its file, then `/readyz` until it is ready, then `/livez`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_api::endpoints::{self, Endpoints};
use headwater_api::error::Chain;
use headwater_api::standing::{CLOCK, LEASE, REGISTERED};
use headwater_api::status::EngineStatus;
use serde::Deserialize;

use super::life::Event;
use crate::http;

/// Asks one engine process.
#[derive(Debug)]
pub(crate) struct Probe {
    file: PathBuf,
    pid: u32,
}

impl Probe {
    /// Of the process `pid`, which says in `data_dir` where it listens.
    pub(crate) fn new(data_dir: &Path, pid: u32) -> Self {
        Self { file: data_dir.join(endpoints::FILE_NAME), pid }
    }

    /// Waits a little, asks once, and says how it is. `serving`: it has been ready already.
    pub(crate) async fn next(&self, serving: bool) -> Event {
        tokio::time::sleep(if serving { LIVE_PAUSE } else { READY_PAUSE }).await;
        let Some(endpoints) = self.endpoints() else {
            return Event::Silent("it does not say where it listens".to_owned());
        };
        let (path, yes) = if serving { ("/livez", Event::Alive) } else { ("/readyz", Event::Ready) };
        match http::get(dial(endpoints.health), path, PATIENCE).await {
            Ok(answer) if answer.status().is_success() || (!serving && lacks_only_the_registry(answer.body())) => yes,
            Ok(answer) => {
                let text = String::from_utf8_lossy(answer.body()).into_owned();
                Event::Silent(format!("{path} answers {}: {}", answer.status().as_u16(), text.trim()))
            }
            Err(e) => Event::Silent(Chain(&e).to_string()),
        }
    }

    /// Where this very process listens, once it says so.
    pub(crate) fn endpoints(&self) -> Option<Endpoints> {
        let endpoints: Endpoints = serde_json::from_slice(&std::fs::read(&self.file).ok()?).ok()?;
        (endpoints.pid == self.pid).then_some(endpoints)
    }
}

/// True if all that keeps a new engine from being ready is outside it: another one would not be better.
fn lacks_only_the_registry(readiness: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Readiness {
        checks: BTreeMap<String, String>,
    }
    let Ok(readiness) = serde_json::from_slice::<Readiness>(readiness) else { return false };
    let mut wrong = readiness.checks.iter().filter(|(_, said)| *said != "ok").map(|(name, _)| name.as_str()).peekable();
    wrong.peek().is_some() && wrong.all(|name| [REGISTERED, LEASE, CLOCK].contains(&name))
}

/// What the engine with this health listener says of itself; `None` if it does not say.
pub(crate) async fn fetch_status(health: SocketAddr) -> Option<EngineStatus> {
    let answer = http::get(dial(health), "/status", PATIENCE).await.ok()?;
    serde_json::from_slice(answer.body()).ok()
}

/// Where to reach a listener of this machine.
pub(crate) fn dial(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(if listener.is_ipv4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        });
    }
    listener
}

/// Between two questions while it starts: what a start may take longer because of this.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// Between two questions while it serves.
const LIVE_PAUSE: Duration = Duration::from_secs(2);
/// For one answer. Long, because a silence costs the viewers their engine.
const PATIENCE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_engine_is_not_blamed_for_a_registry_that_is_away() {
        let check =
            |text: &str, expected: bool| assert_eq!(lacks_only_the_registry(text.as_bytes()), expected, "{text}");
        check(r#"{"ready":false,"checks":{"rtmp":"ok","lease":"no answer","clock":"3600 s ahead"}}"#, true);
        check(r#"{"ready":false,"checks":{"rtmp":"does not answer","lease":"no answer"}}"#, false);
        check(r#"{"ready":true,"checks":{"rtmp":"ok"}}"#, false);
        check("gateway timeout", false);
    }
}
