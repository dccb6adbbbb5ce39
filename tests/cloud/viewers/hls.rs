//! HLS and LL-HLS players that send each request to the next server, as behind a
//! load balancer without stickiness.
//!
//! Plain players poll the playlist; LL-HLS players block until the announced part is available (RFC
//! 8216bis §6.2.5.2). Both fetch all new media and count error responses.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

#[path = "../../load/http.rs"]
#[expect(dead_code, reason = "other functions are used by the load tool")]
pub(super) mod http;

/// Kind of player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Polls the playlist and fetches segments.
    Plain,
    /// Blocks on the playlist and fetches parts.
    LowLatency,
}

/// Statistics over all players.
#[derive(Debug, Clone, Default)]
pub(crate) struct HlsStats {
    /// Responses by status code.
    pub(crate) responses: BTreeMap<u16, u64>,
    /// Description of the first error.
    pub(crate) first_error: Option<String>,
    /// Requests without a response.
    pub(crate) failed_requests: u64,
    /// Segments or parts fetched.
    pub(crate) fetched: u64,
    /// Longest time that a player had no new media, since the last reset.
    pub(crate) longest_pause: Duration,
    /// True once a playlist's discontinuity sequence has advanced: a new generation of
    /// the stream has started.
    pub(crate) saw_discontinuity: bool,
}

impl HlsStats {
    /// Number of responses with this status.
    pub(crate) fn count(&self, status: u16) -> u64 {
        self.responses.get(&status).copied().unwrap_or(0)
    }

    /// Number of responses with a status other than 2xx.
    pub(crate) fn error_responses(&self) -> u64 {
        self.responses.iter().filter(|(status, _)| **status / 100 != 2).map(|(_, count)| count).sum()
    }
}

/// Players of one stream. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct HlsPlayers {
    stats: Arc<Mutex<HlsStats>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl HlsPlayers {
    /// Starts `count` players of `live/ID`, each of which rotates through `servers`
    /// from a different start.
    pub(crate) fn start(runtime: &Handle, kind: Kind, servers: &[SocketAddr], id: &str, count: u32) -> Self {
        let stats = Arc::new(Mutex::new(HlsStats::default()));
        let tasks = (0..count)
            .map(|n| {
                let mut clients: VecDeque<_> = servers.iter().map(|s| http::Client::new(*s)).collect();
                clients.rotate_left(n as usize % servers.len().max(1));
                let path = format!("/live/streams/{id}/playlist.m3u8");
                let (stats, last_fetch) = (Arc::clone(&stats), Instant::now());
                let player = Player {
                    kind,
                    clients,
                    path,
                    stats,
                    fetched_uris: VecDeque::new(),
                    discontinuity_sequence: None,
                    last_fetch,
                };
                // Spread the starts over more than a millisecond.
                let delay = Duration::from_millis(u64::from(n) * 7);
                runtime.spawn(async move {
                    tokio::time::sleep(delay).await;
                    player.play().await;
                })
            })
            .collect();
        Self { stats, tasks }
    }

    /// The statistics so far.
    pub(crate) fn stats(&self) -> HlsStats {
        lock(&self.stats).clone()
    }

    /// Restarts the measurement of the longest pause.
    pub(crate) fn reset_pauses(&self) {
        lock(&self.stats).longest_pause = Duration::ZERO;
    }
}

impl Drop for HlsPlayers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn lock(stats: &Mutex<HlsStats>) -> MutexGuard<'_, HlsStats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Player {
    kind: Kind,
    /// The front client sends the next request.
    clients: VecDeque<http::Client>,
    path: String,
    stats: Arc<Mutex<HlsStats>>,
    /// URIs of fetched media, newest last.
    fetched_uris: VecDeque<String>,
    /// EXT-X-DISCONTINUITY-SEQUENCE of the last playlist.
    discontinuity_sequence: Option<String>,
    last_fetch: Instant,
}

impl Player {
    async fn play(mut self) {
        let mut query = String::new();
        loop {
            let path = format!("{}{query}", self.path);
            let Some(text) = self.fetch(&path).await else {
                query.clear();
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            };
            let text = String::from_utf8_lossy(&text).into_owned();
            let discontinuity_sequence =
                text.lines().find_map(|l| l.strip_prefix("#EXT-X-DISCONTINUITY-SEQUENCE:")).map(str::to_owned);
            if self.discontinuity_sequence.is_some() && discontinuity_sequence != self.discontinuity_sequence {
                lock(&self.stats).saw_discontinuity = true;
            }
            self.discontinuity_sequence = discontinuity_sequence;
            self.fetch_new(&text).await;
            query = blocking_query(&text).filter(|_| self.kind == Kind::LowLatency).unwrap_or_default();
            if query.is_empty() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }

    async fn fetch_new(&mut self, playlist: &str) {
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let mut listed = match self.kind {
            Kind::LowLatency => listed_parts(playlist, &folder),
            Kind::Plain => {
                let segments = playlist.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
                segments.map(|uri| resolve(uri, &folder)).collect()
            }
        };
        if self.fetched_uris.is_empty() {
            // A player starts near the live edge.
            listed.drain(..listed.len().saturating_sub(2));
        }
        for uri in listed {
            if self.fetched_uris.contains(&uri) {
                continue;
            }
            self.fetched_uris.push_back(uri.clone());
            if self.fetched_uris.len() > MAX_FETCHED_URIS {
                self.fetched_uris.pop_front();
            }
            if self.fetch(&uri).await.is_some() {
                let mut stats = lock(&self.stats);
                stats.fetched += 1;
                stats.longest_pause = stats.longest_pause.max(self.last_fetch.elapsed());
                self.last_fetch = Instant::now();
            }
        }
        let mut stats = lock(&self.stats);
        stats.longest_pause = stats.longest_pause.max(self.last_fetch.elapsed());
    }

    async fn fetch(&mut self, path: &str) -> Option<Vec<u8>> {
        self.clients.rotate_left(1);
        let client = self.clients.back_mut()?;
        let response = client.get(path, true).await;
        let mut stats = lock(&self.stats);
        match response {
            Ok(response) => {
                *stats.responses.entry(response.status).or_default() += 1;
                if response.status / 100 == 2 {
                    return Some(response.body);
                }
                let text = String::from_utf8_lossy(&response.body).trim().to_owned();
                stats.first_error.get_or_insert(format!("{path}: {} {text}", response.status));
            }
            Err(e) => {
                stats.failed_requests += 1;
                stats.first_error.get_or_insert(format!("{path}: {e:#}"));
            }
        }
        stats.longest_pause = stats.longest_pause.max(self.last_fetch.elapsed());
        None
    }
}

/// The paths of the parts in a playlist, oldest first.
pub(super) fn listed_parts(playlist: &str, folder: &str) -> Vec<String> {
    let uri =
        |line: &str| line.strip_prefix("#EXT-X-PART:")?.split("URI=\"").nth(1)?.split('"').next().map(str::to_owned);
    playlist.lines().filter_map(uri).map(|uri| resolve(&uri, folder)).collect()
}

fn resolve(uri: &str, folder: &str) -> String {
    if uri.starts_with('/') { uri.to_owned() } else { format!("{folder}/{uri}") }
}

/// The query of a blocking playlist request for the part that the playlist announces.
pub(super) fn blocking_query(playlist: &str) -> Option<String> {
    let hint = playlist.lines().find(|l| l.starts_with("#EXT-X-PRELOAD-HINT:"))?;
    let name = hint.split('"').nth(1)?.rsplit('/').next()?;
    let (segment, part) = name.trim_end_matches(".m4s").split_once('.')?;
    Some(format!("?_HLS_msn={segment}&_HLS_part={part}"))
}

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// More than any playlist contains.
const MAX_FETCHED_URIS: usize = 200;
