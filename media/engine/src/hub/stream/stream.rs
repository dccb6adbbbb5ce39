//! One live stream: the state shared by its producer and its consumers.
//!
//! Frames flow from the producer to the consumers; key frame requests and revocation flow back. The
//! lock of the shared state is held for short steps only, never across a wait. Must not know the
//! handles that use it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use headwater_api::StreamName;
use headwater_api::documents::ViewerCounts;
use headwater_api::rest::{AudioStatus, Notice, StreamStatus, VideoStatus};
use headwater_wire::{MediaKind, Track};
use tokio::sync::{Notify, watch};

use crate::hub::gop_buffer::GopBuffer;
use crate::hub::stream::bitrate::Bitrate;
use crate::runtime::log_limiter::LogLimiter;
use crate::runtime::wall_clock::WallClock;
use crate::runtime::worker_pool::WorkerAffinity;

/// The current tracks of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Set by the first video frame, or when the track is announced.
    pub video: Option<Arc<Track>>,
    /// Set by the first audio packet, or when the track is announced.
    pub audio: Option<Arc<Track>>,
    /// True once the presentation times of the video frames went back, or if the track's
    /// configuration announces frame reordering (`wire::reorder`).
    pub b_frames: bool,
}

/// One live stream. It ends when its [`Producer`](crate::hub::Producer) is dropped; remaining
/// holders then observe the end.
#[derive(Debug)]
pub struct Stream {
    name: StreamName,
    /// The worker on which its producer runs.
    affinity: WorkerAffinity,
    /// Unique within the process. Distinguishes successive streams of the same name.
    instance_id: u64,
    protocol: &'static str,
    started_at_ms: u64,
    wall_clock: WallClock,
    shared: Mutex<StreamState>,
    updated: Notify,
    /// Notifies consumers of only one kind, indexed by [`MediaKind`].
    updated_by_kind: [Notify; 2],
    tracks: watch::Sender<Tracks>,
    ended: watch::Sender<bool>,
    key_frame_requested: AtomicBool,
    revoked: AtomicBool,
    viewers: [AtomicU64; 3],
    notices: Mutex<Vec<Notice>>,
}

/// [`Stream::protocol`] of streams relayed from other nodes.
pub(in crate::hub) const RELAY: &str = "relay";

/// What [`Stream::lock`] protects.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) buffer: GopBuffer,
    pub(super) ended: bool,
    pub(super) received_bytes: u64,
    pub(super) bitrate: Bitrate,
    /// The number of the next frame of each consumer; `None` for a free slot.
    pub(super) cursors: Vec<Option<u64>>,
}

static NOTICE_LOG_LIMITER: LazyLock<LogLimiter> = LazyLock::new(LogLimiter::default);

/// The protocol of a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewerKind {
    /// WebRTC (WHEP).
    Webrtc = 0,
    /// HLS, LL-HLS.
    Hls = 1,
    /// RTMP `play` command.
    Rtmp = 2,
}

/// Counts one viewer until dropped.
#[derive(Debug)]
pub struct ViewerGuard {
    stream: Arc<Stream>,
    kind: ViewerKind,
}

impl Drop for ViewerGuard {
    fn drop(&mut self) {
        self.stream.viewers[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stream {
    /// Creates a stream. `generation` is set if it is published on another node; otherwise the
    /// generation is the current time. `depth`: maximum number of frames and of payload bytes.
    pub(in crate::hub) fn new(
        name: StreamName,
        affinity: WorkerAffinity,
        protocol: &'static str,
        depth: (usize, usize),
        wall_clock: &WallClock,
        generation: Option<u64>,
    ) -> Self {
        Self {
            name,
            affinity,
            instance_id: next_instance_id(),
            protocol,
            started_at_ms: generation.unwrap_or_else(|| wall_clock.now_ms()),
            wall_clock: wall_clock.clone(),
            shared: Mutex::new(StreamState {
                buffer: GopBuffer::new(depth.0, depth.1),
                ended: false,
                received_bytes: 0,
                bitrate: Bitrate::default(),
                cursors: Vec::new(),
            }),
            updated: Notify::new(),
            updated_by_kind: Default::default(),
            tracks: watch::Sender::new(Tracks::default()),
            ended: watch::Sender::new(false),
            key_frame_requested: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            viewers: Default::default(),
            notices: Mutex::new(Vec::new()),
        }
    }

    /// Returns the name, `app/stream_id`.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// Returns the affinity to the producer's worker, for tasks that process this stream.
    pub fn affinity(&self) -> &WorkerAffinity {
        &self.affinity
    }

    /// Returns an id that is unique within the process. Distinguishes successive streams of
    /// the same name.
    pub fn instance_id(&self) -> u64 {
        self.instance_id
    }

    /// Returns the Unix time in milliseconds at which the stream was published, on whichever node.
    /// It identifies the generation of the stream across nodes.
    pub fn started_at_ms(&self) -> u64 {
        self.started_at_ms
    }

    /// Returns the milliseconds since the stream was published, on whichever node.
    pub fn age_ms(&self) -> u64 {
        self.wall_clock.now_ms().saturating_sub(self.started_at_ms)
    }

    /// Returns a receiver of the current tracks and their changes. It fails once the
    /// stream is dropped.
    pub fn tracks(&self) -> watch::Receiver<Tracks> {
        self.tracks.subscribe()
    }

    /// Returns true once the stream is known to have B-frames.
    pub fn has_b_frames(&self) -> bool {
        self.tracks.borrow().b_frames
    }

    /// Returns true if the stream has a video track.
    pub(super) fn has_video(&self) -> bool {
        self.tracks.borrow().video.is_some()
    }

    /// Replaces the current tracks.
    pub(super) fn set_tracks(&self, tracks: Tracks) {
        self.tracks.send_replace(tracks);
    }

    /// Returns true once the producer was dropped or the stream was revoked.
    pub fn is_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until the producer is dropped or the stream is revoked.
    pub async fn ended(&self) {
        // Cannot fail: `self` owns the sender.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Returns true while the stream has a consumer.
    pub fn has_consumers(&self) -> bool {
        self.lock().cursors.iter().any(Option::is_some)
    }

    /// From now on keeps this number of finished segments for [`Stream::consumer_with_history`].
    pub fn keep_history(&self, segments: usize) {
        self.lock().buffer.keep_segments(segments);
    }

    /// Returns the protocol over which the stream is received: "rtmp", "relay" and so on.
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// Returns true if the stream is published on another node.
    pub fn is_relayed(&self) -> bool {
        self.protocol == RELAY
    }

    /// Returns the current number of viewers by protocol.
    pub fn viewers(&self) -> ViewerCounts {
        let viewers = |k: ViewerKind| self.viewers[k as usize].load(Ordering::Relaxed);
        ViewerCounts {
            webrtc: viewers(ViewerKind::Webrtc),
            hls: viewers(ViewerKind::Hls),
            rtmp: viewers(ViewerKind::Rtmp),
        }
    }

    /// Ends the stream for its consumers and marks it as revoked for its producer
    /// ([`Producer::is_revoked`](crate::hub::Producer::is_revoked)).
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
        self.end();
    }

    /// Returns true if the stream was revoked from its producer; it may continue on another node.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }

    /// Ends the stream for its consumers.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.ended.send_replace(true);
        self.updated.notify_waiters();
        self.updated_by_kind.iter().for_each(Notify::notify_waiters);
    }

    /// Returns the notification for consumers of `kind`, or of all frames.
    pub(super) fn update_notify(&self, kind: Option<MediaKind>) -> &Notify {
        kind.map_or(&self.updated, |kind| &self.updated_by_kind[kind as usize])
    }

    /// Requests a key frame from the producer. Several requests before
    /// [`Producer::take_key_frame_request`](crate::hub::Producer::take_key_frame_request) have the
    /// effect of one.
    pub fn request_key_frame(&self) {
        self.key_frame_requested.store(true, Ordering::Relaxed);
    }

    /// Returns true if a key frame was requested since the last call.
    pub(super) fn take_key_frame_request(&self) -> bool {
        self.key_frame_requested.swap(false, Ordering::Relaxed)
    }

    /// Adds a notice for the publisher: it is logged and shown in the status and on the pages. At
    /// most one notice per code.
    pub fn add_notice(&self, code: &str, message: &str) {
        let mut notices = lock(&self.notices);
        if notices.iter().all(|n| n.code != code) {
            // A client can publish again and again.
            if NOTICE_LOG_LIMITER.admits("notice", None::<IpAddr>) {
                log::warn!(stream = self.name.as_str(), code; "{message}");
            }
            notices.push(Notice { code: code.to_owned(), message: message.to_owned() });
        }
    }

    /// Returns the number of notices.
    pub fn notice_count(&self) -> usize {
        lock(&self.notices).len()
    }

    /// Counts a viewer until the guard is dropped.
    pub fn count_viewer(self: &Arc<Self>, kind: ViewerKind) -> ViewerGuard {
        self.viewers[kind as usize].fetch_add(1, Ordering::Relaxed);
        ViewerGuard { stream: Arc::clone(self), kind }
    }

    /// Sets the estimated number of viewers of a protocol without sessions.
    pub fn set_viewers(&self, kind: ViewerKind, count: u64) {
        self.viewers[kind as usize].store(count, Ordering::Relaxed);
    }

    /// Returns a snapshot of the stream for the REST API and the pages.
    pub fn status(&self) -> StreamStatus {
        let tracks = self.tracks.borrow().clone();
        let (received_bytes, bitrate_bps, newest) = {
            let StreamState { received_bytes, bitrate, .. } = &*self.lock();
            (*received_bytes, bitrate.last_bps, bitrate.newest)
        };
        StreamStatus {
            name: self.name.clone(),
            started_at_ms: self.started_at_ms,
            protocol: self.protocol.to_owned(),
            video: tracks.video.as_ref().map(|t| {
                let v = t.video.unwrap_or_default();
                VideoStatus {
                    codec: t.codec.name().to_owned(),
                    codec_string: t.codec_string.clone(),
                    width: v.width,
                    height: v.height,
                    b_frames: tracks.b_frames,
                }
            }),
            audio: tracks.audio.as_ref().map(|t| AudioStatus {
                codec: t.codec.name().to_owned(),
                codec_string: t.codec_string.clone(),
                sample_rate_hz: t.audio.map_or(0, |a| a.sample_rate_hz),
                channels: t.audio.map_or(0, |a| a.channels),
            }),
            media_ms: u64::try_from(newest.as_ms()).unwrap_or(0),
            received_bytes,
            bitrate_bps,
            viewers: self.viewers(),
            notices: lock(&self.notices).clone(),
        }
    }

    /// Locks the state shared by the producer and the consumers.
    pub(super) fn lock(&self) -> MutexGuard<'_, StreamState> {
        lock(&self.shared)
    }
}

/// Returns an id that is unique within the process, across hubs: gateways serve more than one.
fn next_instance_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Ignores poisoning: every change under these locks is a single step, so a panic leaves
/// no partial state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
