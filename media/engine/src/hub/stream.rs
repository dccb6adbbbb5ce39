//! One live stream: what its producer and its consumers share.
//!
//! The producer takes a short lock per frame, consumers take the same lock per batch; nobody holds it across a wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_api::StreamName;
use headwater_api::status::{AudioStatus, Notice, StreamStatus, VideoStatus, ViewerCounts};
use headwater_wire::segment::{Clock, Segment, first_number};
use headwater_wire::{Frame, MediaKind, MediaTime, Track};
use tokio::sync::{Notify, watch};

use super::group::{Group, Item, Lost};
use super::splice::Splice;
use super::wall_clock::WallClock;
use crate::lanes::Home;

/// The tracks a stream has right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Set by the first picture.
    pub video: Option<Arc<Track>>,
    /// Set by the first sound.
    pub audio: Option<Arc<Track>>,
    /// True once a picture was seen whose time to be shown is not its time to be decoded, or the header says so.
    pub b_frames: bool,
}

/// One live stream. It ends when its [`Producer`] is dropped; whoever still holds it then sees the end.
#[derive(Debug)]
pub struct Stream {
    name: StreamName,
    /// Where its producer runs.
    home: Home,
    /// Tells two lives of the same name apart; counts up within a process.
    epoch: u64,
    protocol: &'static str,
    started_at_ms: u64,
    wall: WallClock,
    shared: Mutex<Shared>,
    news: Notify,
    /// The same for those who read pictures or sound only, by [`MediaKind`].
    news_of: [Notify; 2],
    tracks: watch::Sender<Tracks>,
    ended: watch::Sender<bool>,
    key_frame_wanted: AtomicBool,
    revoked: AtomicBool,
    viewers: [AtomicU64; 3],
    notices: Mutex<Vec<Notice>>,
}

/// [`Stream::protocol`] of what is published elsewhere.
pub(super) const RELAY: &str = "relay";

#[derive(Debug)]
struct Shared {
    group: Group,
    ended: bool,
    received_bytes: u64,
    bitrate: Bitrate,
    /// What each consumer wants next; a free place is `None`.
    cursors: Vec<Option<u64>>,
}

/// Bits in the running and in the last full second of media time.
#[derive(Debug, Default)]
struct Bitrate {
    second: i64,
    running_bits: u64,
    last_bps: u64,
    newest: MediaTime,
}

/// How a viewer watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewerKind {
    /// WHEP.
    Webrtc = 0,
    /// HLS, LL-HLS.
    Hls = 1,
    /// RTMP play.
    Rtmp = 2,
}

/// Counts one viewer while it lives.
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
    /// It begins now, or at `life` if it was published elsewhere.
    pub(super) fn new(
        name: StreamName,
        home: Home,
        epoch: u64,
        protocol: &'static str,
        depth: (usize, usize),
        wall: &WallClock,
        life: Option<u64>,
    ) -> Self {
        Self {
            name,
            home,
            epoch,
            protocol,
            started_at_ms: life.unwrap_or_else(|| wall.now_ms()),
            wall: wall.clone(),
            shared: Mutex::new(Shared {
                group: Group::new(depth.0, depth.1),
                ended: false,
                received_bytes: 0,
                bitrate: Bitrate::default(),
                cursors: Vec::new(),
            }),
            news: Notify::new(),
            news_of: Default::default(),
            tracks: watch::Sender::new(Tracks::default()),
            ended: watch::Sender::new(false),
            key_frame_wanted: AtomicBool::new(false),
            revoked: AtomicBool::new(false),
            viewers: Default::default(),
            notices: Mutex::new(Vec::new()),
        }
    }

    /// `app/stream_id`.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// Where to work on what is published.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Tells two lives of the same name apart; counts up within a process.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Unix time of its beginning, in milliseconds. Tells two lives of the same name apart for the outside.
    pub fn started_at_ms(&self) -> u64 {
        self.started_at_ms
    }

    /// Milliseconds since its beginning, wherever that was.
    pub fn age_ms(&self) -> u64 {
        self.wall.now_ms().saturating_sub(self.started_at_ms)
    }

    /// The tracks now and as they change. The receiver sees an error once the stream is gone.
    pub fn tracks(&self) -> watch::Receiver<Tracks> {
        self.tracks.subscribe()
    }

    /// True once the producer is gone.
    pub fn is_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Returns once the producer is gone.
    pub async fn ended(&self) {
        // An error would mean the sender is gone, and it lives in `self`.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// True while it has a consumer.
    pub fn is_read(&self) -> bool {
        lock(&self.shared).cursors.iter().any(Option::is_some)
    }

    /// Keeps so many finished segments from now on, for readers of [`Stream::consumer_of_history`].
    pub fn keep_history(&self, segments: usize) {
        lock(&self.shared).group.keep(segments);
    }

    /// How it comes in: "rtmp", "relay" and so on.
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// True if it is published on another node.
    pub fn is_relayed(&self) -> bool {
        self.protocol == RELAY
    }

    /// Who watches now.
    pub fn viewers(&self) -> ViewerCounts {
        let viewers = |k: ViewerKind| self.viewers[k as usize].load(Ordering::Relaxed);
        ViewerCounts {
            webrtc: viewers(ViewerKind::Webrtc),
            hls: viewers(ViewerKind::Hls),
            rtmp: viewers(ViewerKind::Rtmp),
        }
    }

    /// Takes the stream away from its producer: readers see the end, and the producer [is told](Producer::is_revoked).
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
        self.end();
    }

    /// True if it was taken away from its producer: it may go on at another node.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }

    fn end(&self) {
        lock(&self.shared).ended = true;
        self.ended.send_replace(true);
        self.news.notify_waiters();
        self.news_of.iter().for_each(Notify::notify_waiters);
    }

    /// What tells readers of `kind`, or of everything, that there is more.
    fn news(&self, kind: Option<MediaKind>) -> &Notify {
        kind.map_or(&self.news, |kind| &self.news_of[kind as usize])
    }

    /// Asks the producer for a key frame. Asking twice before one comes is asking once.
    pub fn request_key_frame(&self) {
        self.key_frame_wanted.store(true, Ordering::Relaxed);
    }

    /// Tells the publisher's side, the status and the pages what should be changed. One notice per code.
    pub fn notice(&self, code: &str, message: &str) {
        let mut notices = lock(&self.notices);
        if notices.iter().all(|n| n.code != code) {
            log::warn!(stream = self.name.as_str(), code; "{message}");
            notices.push(Notice { code: code.to_owned(), message: message.to_owned() });
        }
    }

    /// How many notices there are.
    pub fn notice_count(&self) -> usize {
        lock(&self.notices).len()
    }

    /// Counts a viewer until the guard is dropped.
    pub fn viewer(self: &Arc<Self>, kind: ViewerKind) -> ViewerGuard {
        self.viewers[kind as usize].fetch_add(1, Ordering::Relaxed);
        ViewerGuard { stream: Arc::clone(self), kind }
    }

    /// Sets the estimated number of viewers of a protocol that has no sessions.
    pub fn set_viewers(&self, kind: ViewerKind, count: u64) {
        self.viewers[kind as usize].store(count, Ordering::Relaxed);
    }

    /// A reader that starts at the last key frame.
    pub fn consumer(self: &Arc<Self>) -> Consumer {
        self.consumer_at(Group::start)
    }

    /// A reader that starts at the oldest segment that is kept whole.
    pub fn consumer_of_history(self: &Arc<Self>) -> Consumer {
        self.consumer_at(Group::history_start)
    }

    fn consumer_at(self: &Arc<Self>, start: impl FnOnce(&Group) -> u64) -> Consumer {
        let mut shared = lock(&self.shared);
        let start = start(&shared.group);
        let place = shared.cursors.iter().position(Option::is_none).unwrap_or_else(|| {
            shared.cursors.push(None);
            shared.cursors.len() - 1
        });
        shared.cursors[place] = Some(start);
        drop(shared);
        Consumer { stream: Arc::clone(self), place, kind: None, wait_key: true, lost: 0 }
    }

    /// What it looks like from outside.
    pub fn status(&self) -> StreamStatus {
        let tracks = self.tracks.borrow().clone();
        let (received_bytes, bitrate_bps, newest) = {
            let Shared { received_bytes, bitrate, .. } = &*lock(&self.shared);
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
    /// What [`Stream::tracks`] says, which only this end changes.
    tracks: Tracks,
    clock: Clock,
    splice: Splice,
    claim: Option<Box<dyn Send + Sync>>,
    on_drop: super::directory::Registration,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("stream", &self.stream.name).finish_non_exhaustive()
    }
}

impl Producer {
    pub(super) fn new(stream: Arc<Stream>, segment: MediaTime, on_drop: super::directory::Registration) -> Self {
        let clock = Clock::starting_at(first_number(stream.started_at_ms), segment);
        let splice = Splice::new(stream.started_at_ms);
        Self { stream, tracks: Tracks::default(), clock, splice, claim: None, on_drop }
    }

    /// Drops `claim` when the stream ends.
    pub(super) fn hold(&mut self, claim: Box<dyn Send + Sync>) {
        self.claim = Some(claim);
    }

    /// True once the stream was given to another node; frames reach nobody any more.
    pub fn is_revoked(&self) -> bool {
        self.stream.is_revoked()
    }

    /// What follows by [`Producer::send_from`] is of another life of the stream: its times are moved so that readers can
    /// simply go on. `first` and `newest`: decoding times of the frames that are there already, which are played by
    /// now.
    pub fn begin_life(&mut self, life: u64, first: MediaTime, newest: MediaTime) {
        self.splice.begin(life, first, newest);
    }

    /// The stream it feeds.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Makes a track known before its first frame has come.
    pub fn announce(&mut self, track: &Arc<Track>) {
        self.set_track(track, false);
    }

    /// Adds a frame. Never waits.
    pub fn send(&mut self, frame: Frame) {
        let segment = self.clock.on_frame(&frame);
        self.push(frame, segment, false);
    }

    /// Adds a frame of the life that [began last](Producer::begin_life), numbered where it was published. Never waits.
    pub fn send_from(&mut self, mut frame: Frame, segment: Segment, after_gap: bool) {
        frame.dts = frame.dts + self.splice.shift;
        frame.pts = frame.pts + self.splice.shift;
        self.splice.on_frame(frame.dts);
        self.push(frame, segment, after_gap);
    }

    /// The tracks are known to come with pictures out of order.
    pub fn announce_reordered(&mut self, track: &Arc<Track>) {
        self.set_track(track, true);
    }

    fn push(&mut self, frame: Frame, segment: Segment, after_gap: bool) {
        let reordered = frame.kind() == MediaKind::Video && frame.pts != frame.dts;
        self.set_track(&frame.track, reordered);
        let Splice { life, shift, .. } = self.splice;
        let kind = frame.kind();
        let (dts, bytes) = (frame.dts, frame.payload.len());
        let mut shared = lock(&self.stream.shared);
        shared.received_bytes += bytes as u64;
        shared.bitrate.add(dts, bytes);
        let slowest = shared.cursors.iter().flatten().copied().min();
        shared.group.push(Item { frame, segment, life, shift, after_gap }, slowest);
        drop(shared);
        // Without a reader nobody waits: one that comes now finds the frame before it does.
        if slowest.is_some() {
            self.stream.news(None).notify_waiters();
            self.stream.news(Some(kind)).notify_waiters();
        }
    }

    /// Returns once nobody has read the stream for `patience`. For producers that work only on demand.
    pub async fn unwatched(&self, patience: std::time::Duration) {
        let mut since = tokio::time::Instant::now();
        loop {
            if self.stream.is_read() {
                since = tokio::time::Instant::now();
            } else if since.elapsed() >= patience {
                return;
            }
            tokio::time::sleep(patience / 4).await;
        }
    }

    /// True once after somebody asked for a key frame.
    pub fn take_key_frame_request(&self) -> bool {
        self.stream.key_frame_wanted.swap(false, Ordering::Relaxed)
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
        let other_picture = !same && track.kind() == MediaKind::Video;
        self.tracks.b_frames = reordered || (self.tracks.b_frames && !other_picture);
        self.stream.tracks.send_replace(self.tracks.clone());
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.on_drop.remove();
        self.stream.end();
    }
}

impl Bitrate {
    /// Sound may be a little older than the picture before it: what comes for a second that is over counts in the one that
    /// runs.
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

/// The reading end of a stream. Starts at a key frame, and goes on at one when it was too slow.
#[derive(Debug)]
pub struct Consumer {
    stream: Arc<Stream>,
    place: usize,
    /// All that it gives; everything if not set.
    kind: Option<MediaKind>,
    wait_key: bool,
    lost: u64,
}

impl Consumer {
    /// The stream it reads.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The same, but it gives, and wakes for, pictures or sound only.
    #[must_use]
    pub fn only(mut self, kind: MediaKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// The next item a decoder can use, or `None` once the stream has ended and all was read. Cancel-safe.
    pub async fn next(&mut self) -> Option<Item> {
        let stream = Arc::clone(&self.stream);
        loop {
            // Ask to be told first, look second: what comes in between is not missed.
            let news = stream.news(self.kind).notified();
            match self.try_next() {
                Next::Item(item) => return Some(item),
                Next::Ended => return None,
                Next::Empty => news.await,
            }
        }
    }

    /// All items there are, into `out`; waits until there is at least one. False once the stream has ended and all
    /// was read. Cancel-safe.
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

    /// The next item if there is one.
    pub fn try_next(&mut self) -> Next {
        let mut guard = lock(&self.stream.shared);
        let shared = &mut *guard;
        let Some(cursor) = shared.cursors[self.place].as_mut() else { return Next::Ended };
        loop {
            match shared.group.get(*cursor) {
                Ok(Some(item)) => {
                    *cursor += 1;
                    let video_key = item.frame.key && item.frame.kind() == MediaKind::Video;
                    // Sound may be used at any packet, but after a loss it waits for the picture it belongs to.
                    if self.wait_key && !(video_key || (item.frame.key && !shared_has_video(&self.stream))) {
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
                Err(go_on) => {
                    self.lost += go_on.saturating_sub(*cursor);
                    *cursor = go_on;
                    self.wait_key = true;
                }
            }
        }
    }

    /// Goes on at the last key frame if what it would read next is so much older than the newest frame.
    pub fn skip_if_behind(&mut self, limit: MediaTime) {
        let mut shared = lock(&self.stream.shared);
        let Shared { group, cursors, .. } = &mut *shared;
        let Some(cursor) = cursors[self.place].as_mut() else { return };
        if group.is_behind(*cursor, limit) {
            self.lost += group.start() - *cursor;
            *cursor = group.start();
            self.wait_key = true;
        }
    }

    /// Frames missed since it was last asked.
    pub fn take_lost(&mut self) -> Option<Lost> {
        match std::mem::take(&mut self.lost) {
            0 => None,
            frames => Some(Lost { frames }),
        }
    }
}

/// What [`Consumer::try_next`] found.
#[derive(Debug)]
pub enum Next {
    /// An item.
    Item(Item),
    /// Nothing yet.
    Empty,
    /// The stream has ended.
    Ended,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        lock(&self.stream.shared).cursors[self.place] = None;
    }
}

fn shared_has_video(stream: &Stream) -> bool {
    stream.tracks.borrow().video.is_some()
}

/// A panic in another holder left nothing half done here: every change under these locks is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
