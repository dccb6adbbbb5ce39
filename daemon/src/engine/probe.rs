//! Asks a running engine how it is: where it listens from its file, then `/readyz` until it is ready, then `/livez`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_api::endpoints::{self, Endpoints};
use headwater_api::error::Chain;

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
            Ok(answer) if answer.status().is_success() => yes,
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

/// Streams and viewers in the engine with this health listener; `None` if it does not say.
pub(crate) async fn fetch_counts(health: SocketAddr) -> Option<(u32, u32)> {
    let answer = http::get(dial(health), "/metrics", PATIENCE).await.ok()?;
    let text = std::str::from_utf8(answer.body()).ok()?;
    let value = |line: &str, name: &str| line.strip_prefix(name)?.rsplit(' ').next()?.trim().parse::<u32>().ok();
    let streams = text.lines().find_map(|line| value(line, "headwater_streams "))?;
    let viewers = text.lines().filter_map(|line| value(line, "headwater_viewers{")).sum();
    Some((streams, viewers))
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
