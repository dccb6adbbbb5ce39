//! HLS and LL-HLS players that send each request to the next server, as behind a load balancer
//! without stickiness.
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
#[expect(dead_code, reason = "the load tool needs more of it")]
mod http;

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
    pub(crate) answers: BTreeMap<u16, u64>,
    /// Description of the first error.
    pub(crate) refusal: Option<String>,
    /// Requests without a response.
    pub(crate) broken: u64,
    /// Segments or parts fetched.
    pub(crate) media: u64,
    /// Longest time that a player had no new media, since the last reset.
    pub(crate) pause: Duration,
    /// True once a playlist's discontinuity sequence has advanced: a new generation of the stream
    /// has started.
    pub(crate) discontinuity: bool,
}

impl HlsStats {
    /// Number of responses with this status.
    pub(crate) fn status(&self, status: u16) -> u64 {
        self.answers.get(&status).copied().unwrap_or(0)
    }

    /// Number of responses with a status other than 2xx.
    pub(crate) fn error_responses(&self) -> u64 {
        self.answers.iter().filter(|(status, _)| **status / 100 != 2).map(|(_, count)| count).sum()
    }
}

/// Players of one stream. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct HlsPlayers {
    seen: Arc<Mutex<HlsStats>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl HlsPlayers {
    /// Starts `count` players of `live/ID`, each of which rotates through `servers` from a
    /// different start.
    pub(crate) fn start(runtime: &Handle, kind: Kind, servers: &[SocketAddr], id: &str, count: u32) -> Self {
        let seen = Arc::new(Mutex::new(HlsStats::default()));
        let tasks = (0..count)
            .map(|n| {
                let mut clients: VecDeque<_> = servers.iter().map(|s| http::Client::new(*s)).collect();
                clients.rotate_left(n as usize % servers.len().max(1));
                let path = format!("/live/streams/{id}/playlist.m3u8");
                let (seen, newest) = (Arc::clone(&seen), Instant::now());
                let player = Player { kind, clients, path, seen, known: VecDeque::new(), sequence: None, newest };
                // Spread the starts over more than a millisecond.
                let delay = Duration::from_millis(u64::from(n) * 7);
                runtime.spawn(async move {
                    tokio::time::sleep(delay).await;
                    player.play().await;
                })
            })
            .collect();
        Self { seen, tasks }
    }

    /// The statistics so far.
    pub(crate) fn seen(&self) -> HlsStats {
        lock(&self.seen).clone()
    }

    /// Restarts the measurement of the longest pause.
    pub(crate) fn reset_pauses(&self) {
        lock(&self.seen).pause = Duration::ZERO;
    }
}

impl Drop for HlsPlayers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn lock(seen: &Mutex<HlsStats>) -> MutexGuard<'_, HlsStats> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Player {
    kind: Kind,
    /// The front client sends the next request.
    clients: VecDeque<http::Client>,
    path: String,
    seen: Arc<Mutex<HlsStats>>,
    /// URIs of fetched media, newest last.
    known: VecDeque<String>,
    /// EXT-X-DISCONTINUITY-SEQUENCE of the last playlist.
    sequence: Option<String>,
    newest: Instant,
}

impl Player {
    async fn play(mut self) {
        let mut query = String::new();
        loop {
            let path = format!("{}{query}", self.path);
            let Some(text) = self.fetch(&path).await else {
                query.clear();
                tokio::time::sleep(POLL).await;
                continue;
            };
            let text = String::from_utf8_lossy(&text).into_owned();
            let sequence =
                text.lines().find_map(|l| l.strip_prefix("#EXT-X-DISCONTINUITY-SEQUENCE:")).map(str::to_owned);
            if self.sequence.is_some() && sequence != self.sequence {
                lock(&self.seen).discontinuity = true;
            }
            self.sequence = sequence;
            self.fetch_new(&text).await;
            query = next(&text).filter(|_| self.kind == Kind::LowLatency).unwrap_or_default();
            if query.is_empty() {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    async fn fetch_new(&mut self, playlist: &str) {
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let mut listed: Vec<String> = playlist
            .lines()
            .filter_map(|line| match self.kind {
                Kind::LowLatency => line.strip_prefix("#EXT-X-PART:")?.split("URI=\"").nth(1)?.split('"').next(),
                Kind::Plain => Some(line).filter(|l| !l.is_empty() && !l.starts_with('#')),
            })
            .map(|uri| if uri.starts_with('/') { uri.to_owned() } else { format!("{folder}/{uri}") })
            .collect();
        if self.known.is_empty() {
            // A player starts near the live edge.
            listed.drain(..listed.len().saturating_sub(2));
        }
        for uri in listed {
            if self.known.contains(&uri) {
                continue;
            }
            self.known.push_back(uri.clone());
            if self.known.len() > KNOWN {
                self.known.pop_front();
            }
            if self.fetch(&uri).await.is_some() {
                let mut seen = lock(&self.seen);
                seen.media += 1;
                seen.pause = seen.pause.max(self.newest.elapsed());
                self.newest = Instant::now();
            }
        }
        let mut seen = lock(&self.seen);
        seen.pause = seen.pause.max(self.newest.elapsed());
    }

    async fn fetch(&mut self, path: &str) -> Option<Vec<u8>> {
        self.clients.rotate_left(1);
        let client = self.clients.back_mut()?;
        let answer = client.get(path, true).await;
        let mut seen = lock(&self.seen);
        match answer {
            Ok(answer) => {
                *seen.answers.entry(answer.status).or_default() += 1;
                if answer.status / 100 == 2 {
                    return Some(answer.body);
                }
                let text = String::from_utf8_lossy(&answer.body).trim().to_owned();
                seen.refusal.get_or_insert(format!("{path}: {} {text}", answer.status));
            }
            Err(e) => {
                seen.broken += 1;
                seen.refusal.get_or_insert(format!("{path}: {e:#}"));
            }
        }
        seen.pause = seen.pause.max(self.newest.elapsed());
        None
    }
}

/// The query of a blocking playlist request for the part that the playlist announces.
fn next(playlist: &str) -> Option<String> {
    let hint = playlist.lines().find(|l| l.starts_with("#EXT-X-PRELOAD-HINT:"))?;
    let name = hint.split('"').nth(1)?.rsplit('/').next()?;
    let (segment, part) = name.trim_end_matches(".m4s").split_once('.')?;
    Some(format!("?_HLS_msn={segment}&_HLS_part={part}"))
}

const POLL: Duration = Duration::from_millis(500);
/// More than any playlist contains.
const KNOWN: usize = 200;
