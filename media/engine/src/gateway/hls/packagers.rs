//! Serves requests: finds or starts the packager of a stream, and waits for announced content.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use headwater_api::{StreamName, config};
use headwater_wire::MediaTime;
use headwater_wire::hls::{Lookup, Readiness, Reload, Resource, Settings};
use tokio::sync::watch;

use crate::gateway::hls::error::HlsError;
use crate::gateway::hls::metrics::Metrics;
use crate::gateway::hls::packager_task::StreamPackager;
use crate::gateway::hls::snapshot::{PlaylistAccess, PlaylistKind, Snapshot};
use crate::hub::{FindError, Hub, Stream};
use crate::runtime::stages::Stages;

/// The HLS gateway; clones share its packagers.
#[derive(Debug, Clone)]
pub struct Hls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    part: MediaTime,
    segment: MediaTime,
    listed: usize,
    metrics: Metrics,
    /// Bounded by the hub's limit on streams, plus those that ended in the last seconds.
    packagers: Mutex<HashMap<StreamName, Arc<StreamPackager>>>,
}

impl Hls {
    /// A gateway without packagers.
    pub fn new(config: &config::Hls) -> Self {
        Self(Arc::new(Inner {
            part: MediaTime::from_ms(i64::from(config.part_ms.get())),
            segment: MediaTime::from_ms(i64::from(config.segment_ms.get())),
            listed: usize::try_from(config.window.get()).unwrap_or(usize::MAX).min(MAX_LISTED),
            metrics: Metrics::default(),
            packagers: Mutex::default(),
        }))
    }

    /// Adds the counters of this gateway to the stages. Its packagers are tasks of their own.
    pub fn mount(&self, stages: &mut Stages) {
        self.0.metrics.register(stages.own_metrics());
    }

    /// The counters of this gateway.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// True if `viewer` requested a playlist of the stream recently.
    pub fn has_viewer(&self, name: &StreamName, viewer: u64) -> bool {
        let packager = self.0.lock().get(name).cloned();
        packager.is_some_and(|packager| packager.has_viewer(viewer))
    }

    /// Returns a playlist of the stream. Waits for the first complete segment, and for the segment
    /// or part that `reload` requests (RFC 8216bis §6.2.5.2). `access` is what its URIs carry.
    /// `viewer` identifies the player, to estimate the number of players.
    ///
    /// # Errors
    /// See [`HlsError`].
    pub async fn playlist(
        &self,
        hub: &Hub,
        name: &StreamName,
        kind: PlaylistKind,
        access: PlaylistAccess<'_>,
        reload: Option<Reload>,
        viewer: u64,
    ) -> Result<Bytes, HlsError> {
        let packager = self.packager(hub, name).await.map_err(|error| HlsError::from_find_error(error, name))?;
        packager.record_request(Some(viewer));
        let is_settled = |snapshot: &Snapshot| {
            let window = &snapshot.window;
            let readiness = reload.map_or(Readiness::Ready, |r| window.readiness(r));
            window.is_ended()
                || readiness == Readiness::TooFarAhead
                || (readiness == Readiness::Ready && window.is_playable())
        };
        let snapshot = self.wait_for_snapshot(&packager, is_settled).await?;
        if reload.is_some_and(|r| snapshot.window.readiness(r) == Readiness::TooFarAhead) {
            return Err(HlsError::TooFarAhead);
        }
        // Ended before there was a complete segment: the same as a stream that never started.
        let text = snapshot.playlist(kind, access, name.stream_id());
        let text = text.ok_or_else(|| HlsError::NotPublished(name.clone()))?;
        self.0.metrics.playlists.inc();
        self.0.metrics.bytes.inc_by(text.len() as u64);
        Ok(text)
    }

    /// Returns a segment, part or initialisation segment, in pieces to be sent one after another.
    /// Waits for a part that is announced. `started_at_ms` identifies the generation of the stream
    /// that the playlist belonged to.
    ///
    /// # Errors
    /// See [`HlsError`].
    pub async fn resource(
        &self,
        hub: &Hub,
        name: &StreamName,
        started_at_ms: u64,
        resource: Resource,
    ) -> Result<Vec<Bytes>, HlsError> {
        let packager = self.packager(hub, name).await.map_err(|error| HlsError::from_find_error(error, name))?;
        packager.record_request(None);
        let is_plausible = started_at_ms < hub.wall_clock().now_ms() + MAX_CLOCK_ERROR_MS;
        let find = |snapshot: &Snapshot| {
            let window = &snapshot.window;
            match window.generation().cmp(&started_at_ms) {
                // Another node has announced the next generation already; it will arrive here too.
                Ordering::Less if is_plausible && !window.is_ended() => return Lookup::Pending,
                Ordering::Equal => {}
                _ => return Lookup::NotFound,
            }
            if window.is_empty() && !window.is_ended() {
                // Packaging has just started here: the segments that other nodes list arrive with
                // the history of the stream.
                return Lookup::Pending;
            }
            match resource {
                Resource::Init { id } => window.init(id).map_or(Lookup::NotFound, |bytes| Lookup::Found(vec![bytes])),
                Resource::Segment { number } => window.segment(number),
                Resource::Part { number, part } => match window.part(number, part) {
                    Lookup::Found(bytes) => Lookup::Found(vec![bytes]),
                    Lookup::Pending => Lookup::Pending,
                    Lookup::NotFound => Lookup::NotFound,
                },
            }
        };
        let snapshot = self.wait_for_snapshot(&packager, |s| find(s) != Lookup::Pending).await?;
        let Lookup::Found(pieces) = find(&snapshot) else { return Err(HlsError::NoResource) };
        self.0.metrics.resources.inc();
        self.0.metrics.bytes.inc_by(pieces.iter().map(|p| p.len() as u64).sum());
        Ok(pieces)
    }

    /// Waits for a snapshot that satisfies `is_settled`, at most [`request_timeout`].
    async fn wait_for_snapshot(
        &self,
        packager: &StreamPackager,
        is_settled: impl Fn(&Snapshot) -> bool,
    ) -> Result<Arc<Snapshot>, HlsError> {
        let newest = Arc::clone(&packager.snapshot_tx.borrow());
        if is_settled(&newest) {
            return Ok(newest);
        }
        self.0.metrics.blocked.inc();
        let timeout = request_timeout(&newest);
        let mut snapshots: watch::Receiver<Arc<Snapshot>> = packager.snapshot_tx.subscribe();
        // `packager` owns the sender, so the channel cannot close during the wait.
        let settled = match tokio::time::timeout(timeout, snapshots.wait_for(|s| is_settled(s))).await {
            Ok(Ok(snapshot)) => Ok(Arc::clone(&snapshot)),
            _ => Err(HlsError::NotYet),
        };
        if settled.is_err() {
            self.0.metrics.timed_out.inc();
        }
        settled
    }

    /// Returns the packager of the current generation of the stream, which is started if necessary,
    /// or of a stream that has just ended.
    async fn packager(&self, hub: &Hub, name: &StreamName) -> Result<Arc<StreamPackager>, FindError> {
        let live = match hub.stream(name) {
            // The end of a stream that has just ended here is served from here.
            None if !self.0.lock().contains_key(name) => hub.find(name).await,
            here => here.ok_or(FindError::NotPublished),
        };
        let mut packagers = self.0.lock();
        let known = packagers.get(name);
        let stream = match live {
            Ok(stream) => stream,
            Err(error) => return known.cloned().ok_or(error),
        };
        if let Some(known) = known.filter(|f| f.instance_id == stream.instance_id()) {
            return Ok(Arc::clone(known));
        }
        let Inner { part, segment, listed, .. } = *self.0;
        let settings = Settings {
            part_duration: part,
            segment_duration: segment,
            listed_segments: listed,
            started_at_ms: stream.started_at_ms(),
        };
        stream.keep_history(hub.history_segments());
        let packager = Arc::new(StreamPackager::new(&stream, settings));
        packagers.insert(name.clone(), Arc::clone(&packager));
        drop(packagers);
        let affinity = stream.affinity().clone();
        affinity.spawn(self.clone().run_packager(stream, Arc::clone(&packager)));
        Ok(packager)
    }

    /// The task of one packager. It ends without being cancelled, at the latest
    /// `LINGER_DURATION` after its stream.
    async fn run_packager(self, stream: Arc<Stream>, packager: Arc<StreamPackager>) {
        let metrics = &self.0.metrics;
        metrics.packagers.inc();
        log::info!(stream = packager.name.as_str(); "hls packaging started");
        let has_ended = packager.run(&stream, metrics, || self.0.remove_if_idle(&packager)).await;
        // Only the last segments of an ended stream stay in memory, not the stream itself.
        drop(stream);
        log::info!(stream = packager.name.as_str(), reason = if has_ended { "stream ended" } else { "no viewers" }; "hls packaging stopped");
        if has_ended {
            packager.linger(|| self.0.is_replaced(&packager)).await;
            self.0.remove(&packager);
        }
        metrics.packagers.dec();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, Arc<StreamPackager>>> {
        self.packagers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the table contains another packager for this stream, or none.
    fn is_replaced(&self, packager: &Arc<StreamPackager>) -> bool {
        !self.lock().get(&packager.name).is_some_and(|known| Arc::ptr_eq(known, packager))
    }

    /// Removes `packager` from the table.
    fn remove(&self, packager: &Arc<StreamPackager>) {
        let mut packagers = self.lock();
        if packagers.get(&packager.name).is_some_and(|known| Arc::ptr_eq(known, packager)) {
            packagers.remove(&packager.name);
        }
    }

    /// Removes `packager` from the table if it is idle and no request uses it. True if it is no
    /// longer in the table.
    ///
    /// Requests look up the table under the same lock, so none can find a packager that has
    /// stopped.
    fn remove_if_idle(&self, packager: &Arc<StreamPackager>) -> bool {
        let mut packagers = self.lock();
        if !packagers.get(&packager.name).is_some_and(|known| Arc::ptr_eq(known, packager)) {
            return true;
        }
        let idle = Arc::strong_count(packager) <= TABLE_AND_TASK_REFS && packager.is_idle();
        if idle {
            packagers.remove(&packager.name);
        }
        idle
    }
}

/// How long a request may wait: for the first segment, or three target durations
/// (RFC 8216bis §6.2.5.2).
fn request_timeout(snapshot: &Snapshot) -> Duration {
    if snapshot.window.is_playable() {
        Duration::from_secs(3 * snapshot.window.target_duration_secs()).min(MAX_RELOAD_TIMEOUT)
    } else {
        FIRST_SEGMENT_TIMEOUT
    }
}

/// Encoders usually send a key frame at least every 10 s. Shorter than the 20 s that hls.js waits.
const FIRST_SEGMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// Even with the longest segments, the next part is due much sooner.
const MAX_RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Clocks of two nodes differ by less; a node whose clock is further off is not ready.
const MAX_CLOCK_ERROR_MS: u64 = 10_000;
/// Upper limit of segments in a playlist, whatever is configured.
const MAX_LISTED: usize = 1_000;
/// References that the table and the task hold; a request holds another one.
const TABLE_AND_TASK_REFS: usize = 2;
