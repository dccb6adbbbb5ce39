//! LL-HLS viewers behind a load balancer: each has its own connection and pauses of its own, and
//! requests like the player page (`media/web/assets/player/hls-loader.js`).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::attempts::PersistentClient;
use super::hls::{blocking_query, listed_parts};

/// Viewers of one stream. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct LowLatencyViewers {
    viewers: Vec<Arc<Mutex<Progress>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What one viewer has received.
#[derive(Debug)]
struct Progress {
    parts: u64,
    last_part: Instant,
    longest: Duration,
}

impl LowLatencyViewers {
    /// Starts `count` viewers of `live/ID`.
    pub(crate) fn start(runtime: &Handle, server: SocketAddr, id: &str, count: u32) -> Self {
        let new = || Arc::new(Mutex::new(Progress { parts: 0, last_part: Instant::now(), longest: Duration::ZERO }));
        let viewers: Vec<_> = (0..count).map(|_| new()).collect();
        let start = |(n, progress): (u32, &Arc<Mutex<Progress>>)| {
            let folder = "/live/streams";
            let viewer = Viewer {
                client: PersistentClient::new(server),
                path: format!("{folder}/{id}/playlist.m3u8"),
                fetched_uris: VecDeque::new(),
                progress: Arc::clone(progress),
            };
            let delay = Duration::from_millis(u64::from(n) * 20);
            runtime.spawn(async move {
                tokio::time::sleep(delay).await;
                viewer.play().await;
            })
        };
        let tasks = (0..).zip(&viewers).map(start).collect();
        Self { viewers, tasks }
    }

    /// Restarts the measurement of the longest pauses.
    pub(crate) fn reset_pauses(&self) {
        self.viewers.iter().for_each(|viewer| lock(viewer).longest = Duration::ZERO);
    }

    /// For each viewer, the longest time without a new part since the last reset, and whether it
    /// plays.
    pub(crate) fn pauses(&self) -> Vec<(Duration, bool)> {
        let pause = |progress: &Progress| {
            let lasting = progress.last_part.elapsed();
            (progress.longest.max(lasting), progress.parts > 0 && lasting < MAX_PART_AGE)
        };
        self.viewers.iter().map(|viewer| pause(&lock(viewer))).collect()
    }
}

impl Drop for LowLatencyViewers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Viewer {
    client: PersistentClient,
    path: String,
    /// URIs of fetched parts, newest last.
    fetched_uris: VecDeque<String>,
    progress: Arc<Mutex<Progress>>,
}

impl Viewer {
    async fn play(mut self) {
        let mut query = None;
        loop {
            let Some(playlist) = self.fetch_playlist(query.take()).await else {
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            };
            let is_new = self.fetch_new_parts(&playlist).await;
            query = blocking_query(&playlist).filter(|_| is_new);
            if query.is_none() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }

    /// A blocking request that takes too long is replaced by one that does not block.
    async fn fetch_playlist(&mut self, blocking_query: Option<String>) -> Option<String> {
        let mut is_after_loss = false;
        if let Some(query) = blocking_query {
            let path = format!("{}{query}", self.path);
            if let Some(body) = self.client.get_once(&path, BLOCKING_TIMEOUT).await {
                return String::from_utf8(body).ok();
            }
            is_after_loss = true;
        }
        String::from_utf8(self.client.get(&self.path, is_after_loss).await?).ok()
    }

    /// Returns false if the playlist has no new parts.
    async fn fetch_new_parts(&mut self, playlist: &str) -> bool {
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut listed = listed_parts(playlist, folder);
        if self.fetched_uris.is_empty() {
            // A player starts near the live edge.
            listed.drain(..listed.len().saturating_sub(2));
        }
        listed.retain(|uri| !self.fetched_uris.contains(uri));
        // After a pause a player continues at the live edge.
        let missed = listed.len().saturating_sub(MAX_BEHIND_PARTS);
        self.fetched_uris.extend(listed.drain(..missed));
        let is_new = !listed.is_empty();
        for uri in listed {
            if self.client.get(&uri, false).await.is_some() {
                let mut progress = lock(&self.progress);
                if progress.parts > 0 {
                    progress.longest = progress.longest.max(progress.last_part.elapsed());
                }
                (progress.parts, progress.last_part) = (progress.parts + 1, Instant::now());
            }
            self.fetched_uris.push_back(uri);
        }
        let outdated = self.fetched_uris.len().saturating_sub(MAX_FETCHED_URIS);
        self.fetched_uris.drain(..outdated);
        is_new
    }
}

/// Several times the duration of a part.
const BLOCKING_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(500);
const MAX_PART_AGE: Duration = Duration::from_secs(1);
/// About what players have in their buffer.
const MAX_BEHIND_PARTS: usize = 5;
/// More than any playlist contains.
const MAX_FETCHED_URIS: usize = 200;
