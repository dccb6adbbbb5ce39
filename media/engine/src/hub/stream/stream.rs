//! One live stream: the state shared by its producer and its consumers.
//!
//! The producer takes a short lock per frame, consumers take the same lock per item; it is never
//! held across a wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_api::StreamName;
use headwater_api::documents::ViewerCounts;
use headwater_api::rest::{AudioStatus, Notice, StreamStatus, VideoStatus};
use headwater_wire::segment::{Segment, Segmenter, first_segment_number};
use headwater_wire::{Frame, MediaKind, MediaTime, Track};
use tokio::sync::{Notify, watch};

use super::splice::Splice;
use crate::hub::gop_buffer::{GopBuffer, Item, LostFrames};
use crate::node::wall_clock::WallClock;
use crate::runtime::worker_pool::WorkerAffinity;

/// The current tracks of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Set by the first video frame, or when the track is announced.
    pub video: Option<Arc<Track>>,
    /// Set by the first audio packet, or when the track is announced.
    pub audio: Option<Arc<Track>>,
    /// True once a video frame had a presentation time other than its decoding time, or the track's
    /// configuration announces frame reordering.
    pub b_frames: bool,
}

/// One live stream. It ends when its [`Producer`] is dropped; remaining holders then
/// observe the end.
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
pub(super) const RELAY: &str = "relay";

#[derive(Debug)]
struct StreamState {
    buffer: GopBuffer,
    ended: bool,
    received_bytes: u64,
    bitrate: Bitrate,
    /// The number of the next frame of each consumer; `None` for a free slot.
    cursors: Vec<Option<u64>>,
}

/// Counts the bits in the current and in the last complete second of media time.
#[derive(Debug, Default)]
struct Bitrate {
    second: i64,
    running_bits: u64,
    last_bps: u64,
    newest: MediaTime,
}

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
    pub(super) fn new(
        name: StreamName,
        affinity: WorkerAffinity,
        instance_id: u64,
        protocol: &'static str,
        depth: (usize, usize),
        wall_clock: &WallClock,
        generation: Option<u64>,
    ) -> Self {
        Self {
            name,
            affinity,
            instance_id,
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
        lock(&self.shared).cursors.iter().any(Option::is_some)
    }

    /// From now on keeps this number of finished segments for [`Stream::consumer_with_history`].
    pub fn keep_history(&self, segments: usize) {
        lock(&self.shared).buffer.keep_segments(segments);
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
    /// ([`Producer::is_revoked`]).
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
        self.end();
    }

    /// Returns true if the stream was revoked from its producer; it may continue on another node.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }

    fn end(&self) {
        lock(&self.shared).ended = true;
        self.ended.send_replace(true);
        self.updated.notify_waiters();
        self.updated_by_kind.iter().for_each(Notify::notify_waiters);
    }

    /// Returns the notification for consumers of `kind`, or of all frames.
    fn update_notify(&self, kind: Option<MediaKind>) -> &Notify {
        kind.map_or(&self.updated, |kind| &self.updated_by_kind[kind as usize])
    }

    /// Requests a key frame from the producer. Several requests before
    /// [`Producer::take_key_frame_request`] have the effect of one.
    pub fn request_key_frame(&self) {
        self.key_frame_requested.store(true, Ordering::Relaxed);
    }

    /// Adds a notice for the publisher: it is logged and shown in the status and on the pages. At
    /// most one notice per code.
    pub fn add_notice(&self, code: &str, message: &str) {
        let mut notices = lock(&self.notices);
        if notices.iter().all(|n| n.code != code) {
            log::warn!(stream = self.name.as_str(), code; "{message}");
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

    /// Creates a consumer that starts at the last key frame.
    pub fn consumer(self: &Arc<Self>) -> Consumer {
        self.consumer_at(GopBuffer::start)
    }

    /// Creates a consumer that starts at the oldest completely kept segment.
    pub fn consumer_with_history(self: &Arc<Self>) -> Consumer {
        self.consumer_at(GopBuffer::history_start)
    }

    fn consumer_at(self: &Arc<Self>, start: impl FnOnce(&GopBuffer) -> u64) -> Consumer {
        let mut shared = lock(&self.shared);
        let start = start(&shared.buffer);
        let slot = shared.cursors.iter().position(Option::is_none).unwrap_or_else(|| {
            shared.cursors.push(None);
            shared.cursors.len() - 1
        });
        shared.cursors[slot] = Some(start);
        drop(shared);
        Consumer { stream: Arc::clone(self), slot, kind: None, wait_key: true, lost: 0 }
    }

    /// Returns a snapshot of the stream for the REST API and the pages.
    pub fn status(&self) -> StreamStatus {
        let tracks = self.tracks.borrow().clone();
        let (received_bytes, bitrate_bps, newest) = {
            let StreamState { received_bytes, bitrate, .. } = &*lock(&self.shared);
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
}

/// The writing end of a stream. Dropping it ends the stream for every [`Consumer`].
pub struct Producer {
    stream: Arc<Stream>,
    /// The current value of [`Stream::tracks`], which only the producer changes.
    tracks: Tracks,
    segmenter: Segmenter,
    splice: Splice,
    claim: Option<Box<dyn Send + Sync>>,
    directory_entry: super::directory::DirectoryEntry,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("stream", &self.stream.name).finish_non_exhaustive()
    }
}

impl Producer {
    pub(super) fn new(stream: Arc<Stream>, segment_duration: MediaTime, directory_entry: super::directory::DirectoryEntry) -> Self {
        let segmenter = Segmenter::with_first_number(first_segment_number(stream.started_at_ms), segment_duration);
        let splice = Splice::new(stream.started_at_ms);
        Self { stream, tracks: Tracks::default(), segmenter, splice, claim: None, directory_entry }
    }

    /// Drops `claim` when the stream ends.
    pub(super) fn set_claim(&mut self, claim: Box<dyn Send + Sync>) {
        self.claim = Some(claim);
    }

    /// Returns true once the stream was revoked in favour of another node; frames no longer
    /// reach any consumer.
    pub fn is_revoked(&self) -> bool {
        self.stream.is_revoked()
    }

    /// Starts another generation of a relayed stream. The times of the frames passed to
    /// [`Producer::send_relayed`] are shifted so that consumers see one timeline. `first` and
    /// `newest` are the decoding times of the oldest and the newest frame already received.
    pub fn start_generation(&mut self, generation: u64, first: MediaTime, newest: MediaTime) {
        self.splice.start_generation(generation, first, newest);
    }

    /// Returns the stream of this producer.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Announces a track before its first frame.
    pub fn announce(&mut self, track: &Arc<Track>) {
        self.set_track(track, false);
    }

    /// Adds a frame. Does not wait.
    pub fn send(&mut self, frame: Frame) {
        let segment = self.segmenter.on_frame(&frame);
        self.push(frame, segment, false);
    }

    /// Adds a frame of the [current generation](Producer::start_generation) of a relayed stream,
    /// with the segment number of its publishing node. Does not wait.
    pub fn send_relayed(&mut self, mut frame: Frame, segment: Segment, after_gap: bool) {
        frame.dts = frame.dts + self.splice.time_shift;
        frame.pts = frame.pts + self.splice.time_shift;
        self.splice.on_frame(frame.dts);
        self.push(frame, segment, after_gap);
    }

    /// Announces a video track that has B-frames.
    pub fn announce_with_b_frames(&mut self, track: &Arc<Track>) {
        self.set_track(track, true);
    }

    fn push(&mut self, frame: Frame, segment: Segment, after_gap: bool) {
        let reordered = frame.kind() == MediaKind::Video && frame.pts != frame.dts;
        self.set_track(&frame.track, reordered);
        let Splice { generation, time_shift, .. } = self.splice;
        let kind = frame.kind();
        let (dts, bytes) = (frame.dts, frame.payload.len());
        let mut shared = lock(&self.stream.shared);
        shared.received_bytes += bytes as u64;
        shared.bitrate.add(dts, bytes);
        let slowest = shared.cursors.iter().flatten().copied().min();
        shared.buffer.push(Item { frame, segment, generation, time_shift, after_gap }, slowest);
        drop(shared);
        // Without a consumer there is no one to notify: a new consumer reads the frame
        // before it waits.
        if slowest.is_some() {
            self.stream.update_notify(None).notify_waiters();
            self.stream.update_notify(Some(kind)).notify_waiters();
        }
    }

    /// Waits until the stream had no consumer for `idle_timeout`. For producers that run on demand.
    pub async fn wait_until_unread(&self, idle_timeout: std::time::Duration) {
        let mut last_read = tokio::time::Instant::now();
        loop {
            if self.stream.has_consumers() {
                last_read = tokio::time::Instant::now();
            } else if last_read.elapsed() >= idle_timeout {
                return;
            }
            tokio::time::sleep(idle_timeout / 4).await;
        }
    }

    /// Returns true if a key frame was requested since the last call.
    pub fn take_key_frame_request(&self) -> bool {
        self.stream.key_frame_requested.swap(false, Ordering::Relaxed)
    }

    fn set_track(&mut self, track: &Arc<Track>, reordered: bool) {
        let slot = match track.kind() {
            MediaKind::Video => &mut self.tracks.video,
            MediaKind::Audio => &mut self.tracks.audio,
        };
        let same = slot.as_ref().is_some_and(|t| Arc::ptr_eq(t, track));
        let reordered = reordered || track.video.and_then(|v| v.reorder_frames).is_some_and(|n| n > 0);
        if same && (!reordered || self.tracks.b_frames) {
            return;
        }
        *slot = Some(Arc::clone(track));
        let new_video_track = !same && track.kind() == MediaKind::Video;
        self.tracks.b_frames = reordered || (self.tracks.b_frames && !new_video_track);
        self.stream.tracks.send_replace(self.tracks.clone());
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.directory_entry.remove();
        self.stream.end();
    }
}

impl Bitrate {
    /// Audio may be slightly older than the preceding video frame: a packet of a completed second
    /// is counted in the current one.
    fn add(&mut self, dts: MediaTime, bytes: usize) {
        let second = dts.as_flicks().div_euclid(MediaTime::HZ);
        if second > self.second {
            self.last_bps = if second == self.second + 1 { self.running_bits } else { 0 };
            self.second = second;
            self.running_bits = 0;
        }
        self.running_bits += 8 * bytes as u64;
        self.newest = self.newest.max(dts);
    }
}

/// The reading end of a stream. Starts at a key frame and, if it was too slow, resumes at one.
#[derive(Debug)]
pub struct Consumer {
    stream: Arc<Stream>,
    slot: usize,
    /// The only kind that is returned; all frames if not set.
    kind: Option<MediaKind>,
    wait_key: bool,
    lost: u64,
}

impl Consumer {
    /// Returns the stream of this consumer.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Restricts the consumer to audio or to video: it returns and wakes for this kind only.
    #[must_use]
    pub fn only(mut self, kind: MediaKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Returns the next item that a decoder can use, or `None` once the stream has ended and
    /// everything was read. Cancel-safe.
    pub async fn next(&mut self) -> Option<Item> {
        let stream = Arc::clone(&self.stream);
        loop {
            // Register for the notification before reading, so that an update in between
            // is not missed.
            let updated = stream.update_notify(self.kind).notified();
            match self.try_next() {
                Next::Item(item) => return Some(item),
                Next::Ended => return None,
                Next::Empty => updated.await,
            }
        }
    }

    /// Appends all available items to `out`; waits until there is at least one. Returns false once
    /// the stream has ended and everything was read. Cancel-safe.
    pub async fn next_batch(&mut self, out: &mut Vec<Item>) -> bool {
        match self.next().await {
            None => false,
            Some(item) => {
                out.push(item);
                while let Next::Item(item) = self.try_next() {
                    out.push(item);
                }
                true
            }
        }
    }

    /// Returns the next item if one is available. Does not wait.
    pub fn try_next(&mut self) -> Next {
        let mut guard = lock(&self.stream.shared);
        let shared = &mut *guard;
        let Some(cursor) = shared.cursors[self.slot].as_mut() else { return Next::Ended };
        loop {
            match shared.buffer.get(*cursor) {
                Ok(Some(item)) => {
                    *cursor += 1;
                    let video_key = item.frame.key && item.frame.kind() == MediaKind::Video;
                    // Audio is decodable at any packet, but after a loss it waits for the
                    // video key frame.
                    if self.wait_key && !(video_key || (item.frame.key && !has_video(&self.stream))) {
                        self.lost += 1;
                        continue;
                    }
                    self.wait_key = false;
                    if self.kind.is_none_or(|kind| item.frame.kind() == kind) {
                        return Next::Item(item.clone());
                    }
                }
                Ok(None) if shared.ended => return Next::Ended,
                Ok(None) => return Next::Empty,
                Err(resume_at) => {
                    self.lost += resume_at.saturating_sub(*cursor);
                    *cursor = resume_at;
                    self.wait_key = true;
                }
            }
        }
    }

    /// Skips to the last key frame if the next frame is older than the newest by more than `limit`.
    pub fn skip_if_behind(&mut self, limit: MediaTime) {
        let mut shared = lock(&self.stream.shared);
        let StreamState { buffer, cursors, .. } = &mut *shared;
        let Some(cursor) = cursors[self.slot].as_mut() else { return };
        if buffer.is_behind(*cursor, limit) {
            self.lost += buffer.start() - *cursor;
            *cursor = buffer.start();
            self.wait_key = true;
        }
    }

    /// Returns the frames missed since the last call, or `None` if there are none.
    pub fn take_lost(&mut self) -> Option<LostFrames> {
        match std::mem::take(&mut self.lost) {
            0 => None,
            frames => Some(LostFrames { frames }),
        }
    }
}

/// The result of [`Consumer::try_next`].
#[derive(Debug)]
pub enum Next {
    /// The next item.
    Item(Item),
    /// No item is available yet.
    Empty,
    /// The stream has ended and everything was read.
    Ended,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        lock(&self.stream.shared).cursors[self.slot] = None;
    }
}

fn has_video(stream: &Stream) -> bool {
    stream.tracks.borrow().video.is_some()
}

/// Ignores poisoning: every change under these locks is a single step, so a panic leaves
/// no partial state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
