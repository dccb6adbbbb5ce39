//! Packetizes one track of a stream into RTP, once for all its WebRTC viewers.
//!
//! A task reads frames from the hub and appends packets to a ring; it then notifies the subscribed
//! workers, which copy the new packets. Both sides take a short lock per frame.
//!
//! If many viewers receive both audio and video, audio packets wait for the next video frame: they
//! leave in the same GSO batch, and no worker wakes for audio alone.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use headwater_wire::rtp::{H264Packetiser, OpusPacketiser, PacketisedFrame, Ring};
use headwater_wire::{Codec, Frame, MediaKind, MediaTime};

use crate::gateway::webrtc::play::audio_batch::Held;
use crate::gateway::webrtc::play::mailbox::{Listener, Mailbox};
use crate::hub::{Consumer, Item, Stream};

/// Why a packetizer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The stream or the rendition has ended.
    Stream,
    /// The publisher has begun to send B-frames.
    BFrames,
    /// The publisher has changed to a codec that the viewers' answers do not list.
    Codec,
}

/// Maps wall-clock time to media time, for sender reports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anchor {
    at: Instant,
    time: MediaTime,
}

impl Anchor {
    /// Returns the media time at `now`.
    pub(crate) fn time_at(&self, now: Instant) -> MediaTime {
        self.time + MediaTime::from_duration(now.saturating_duration_since(self.at))
    }

    /// Adjusts the clock to a frame received at `now`: by 1/16 of the deviation, so that one late
    /// frame has little effect, or at once if the deviation exceeds 500 ms.
    fn follow(&mut self, now: Instant, newest: MediaTime) {
        let expected = self.time_at(now);
        let error = newest - expected;
        let far = error.as_ms().unsigned_abs() > 500;
        self.at = now;
        self.time = if far { newest } else { expected + MediaTime::from_flicks(error.as_flicks() / 16) };
    }
}

/// The RTP packets of one track. Ends with its stream.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) id: u64,
    pub(crate) kind: MediaKind,
    /// The same for all viewers; random per packetizer.
    pub(crate) ssrc: u32,
    /// Added to every timestamp; random per packetizer (RFC 3550 §5.1).
    pub(crate) timestamp_offset: u32,
    pub(crate) clock_hz: u32,
    /// The source: a published stream, or a rendition of it.
    pub(crate) stream: Arc<Stream>,
    shared: Mutex<Shared>,
    /// Video only: the audio track that may leave with it.
    sound: Mutex<Weak<Feed>>,
    /// Viewers of this track.
    viewers: AtomicUsize,
    riders: AtomicUsize,
}

#[derive(Debug)]
struct Shared {
    ring: Ring,
    held: Held,
    anchor: Option<Anchor>,
    ended: Option<End>,
    /// One per worker with viewers of this track.
    listeners: Vec<Arc<Listener>>,
}

/// The state of a packetizer besides its ring, copied for a worker.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) anchor: Option<Anchor>,
    pub(crate) ended: Option<End>,
}

impl Feed {
    /// Spawns a task that reads `stream`. The task ends with the stream, or at the first frame
    /// after the last handle was dropped. Must be called within a Tokio runtime.
    pub(crate) fn start(stream: &Arc<Stream>, kind: MediaKind) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (ring, clock_hz) = match kind {
            MediaKind::Video => (Ring::pictures(), H264Packetiser::CLOCK_HZ),
            MediaKind::Audio => (Ring::sound(), OpusPacketiser::CLOCK_HZ),
        };
        let feed = Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            kind,
            ssrc: rand::random(),
            timestamp_offset: rand::random(),
            clock_hz,
            stream: Arc::clone(stream),
            shared: Mutex::new(Shared {
                ring,
                held: Held::default(),
                anchor: None,
                ended: None,
                listeners: Vec::new(),
            }),
            sound: Mutex::default(),
            viewers: AtomicUsize::new(0),
            riders: AtomicUsize::new(0),
        });
        stream.home().spawn(read(Arc::downgrade(&feed), stream.consumer().only(kind), Packetiser::new(kind)));
        feed
    }

    /// Subscribes a worker's mailbox to updates. Returns the current ring and status as well.
    pub(crate) fn listen(&self, mailbox: &Arc<Mailbox>) -> (Arc<Listener>, Ring, View) {
        let listener = Arc::new(Listener::new(Arc::clone(mailbox), self.id));
        let mut shared = self.lock();
        shared.listeners.push(Arc::clone(&listener));
        (listener, shared.ring.clone(), shared.view())
    }

    /// Ends a subscription made by [`StreamPacketizer::subscribe`].
    pub(crate) fn unlisten(&self, listener: &Arc<Listener>) {
        self.lock().listeners.retain(|l| !Arc::ptr_eq(l, listener));
    }

    /// Appends the packets that a worker's copy of the ring lacks.
    pub(crate) fn catch_up(&self, copy: &mut Ring) -> View {
        let shared = self.lock();
        if copy.end() < shared.ring.front() {
            *copy = shared.ring.clone();
        }
        while let Some(frame) = shared.ring.frame(copy.end()) {
            copy.push_shared(Arc::clone(frame));
        }
        shared.view()
    }

    /// Sets the audio track that may leave with this video track.
    pub(crate) fn carry(&self, sound: &Arc<Self>) {
        *self.sound.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(sound);
    }

    /// Returns the audio track that may leave with this video track.
    pub(crate) fn sound(&self) -> Option<Arc<Self>> {
        self.sound.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Counts a viewer. `batches_audio`: it receives both audio and video.
    pub(crate) fn join(&self, rides: bool) {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        self.riders.fetch_add(usize::from(rides), Ordering::Relaxed);
    }

    /// Undoes [`StreamPacketizer::add_viewer`] with the same argument.
    pub(crate) fn leave(&self, rides: bool) {
        self.viewers.fetch_sub(1, Ordering::Relaxed);
        self.riders.fetch_sub(usize::from(rides), Ordering::Relaxed);
    }

    /// Packetizes frames and notifies the workers.
    ///
    /// # Errors
    /// Returns the reason if a frame cannot be sent to viewers. The frames before it are sent.
    fn take(&self, packetiser: &mut Packetiser, items: &[Item], now: Instant) -> Result<(), End> {
        let holds = self.kind == MediaKind::Audio && self.riders.load(Ordering::Relaxed) >= RIDERS_AT_LEAST;
        let sound = self.sound().filter(|sound| sound.release());
        let mut shared = self.lock();
        let end = shared.ring.end();
        let usable = items.iter().position(|item| packetiser.check(&item.frame).is_err()).unwrap_or(items.len());
        for Item { frame, .. } in &items[..usable] {
            if holds {
                let overdue = shared.held.hold(frame.clone());
                shared.push(packetiser, &overdue);
            } else {
                shared.push_held();
                shared.push(packetiser, std::slice::from_ref(frame));
            }
        }
        if let Some(newest) = items[..usable].last() {
            shared.follow(now, newest.frame.pts);
        }
        if shared.ring.end() > end {
            shared.tell();
        }
        drop(shared);
        // Last, so that a worker handles the video frame first and sends the audio with it.
        if let Some(sound) = sound {
            sound.lock().tell();
        }
        items.get(usable).map_or(Ok(()), |item| packetiser.check(&item.frame))
    }

    /// Appends buffered audio to the ring. Returns true if workers must be notified: there was
    /// some, and a viewer of this track receives no video.
    fn release(&self) -> bool {
        let mut shared = self.lock();
        shared.push_held() && self.viewers.load(Ordering::Relaxed) > self.riders.load(Ordering::Relaxed)
    }

    fn end(&self, end: End) {
        let mut shared = self.lock();
        shared.push_held();
        shared.ended.get_or_insert(end);
        shared.tell();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Every change under this lock is a single step.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn view(&self) -> View {
        View { anchor: self.anchor, ended: self.ended }
    }

    fn push(&mut self, packetiser: &mut Packetiser, frames: &[Frame]) {
        for packets in frames.iter().filter_map(|frame| packetiser.packetise(frame)) {
            self.ring.push(packets);
        }
    }

    /// Appends buffered audio to the ring. Returns true if there was any.
    fn push_held(&mut self) -> bool {
        let held = self.held.take();
        self.push(&mut Packetiser::Audio(OpusPacketiser), &held);
        !held.is_empty()
    }

    fn follow(&mut self, now: Instant, newest: MediaTime) {
        match &mut self.anchor {
            Some(anchor) => anchor.follow(now, newest),
            none => *none = Some(Anchor { at: now, time: newest }),
        }
    }

    fn tell(&self) {
        self.listeners.iter().for_each(|l| l.tell());
    }
}

async fn read(feed: Weak<Feed>, mut consumer: Consumer, mut packetiser: Packetiser) {
    let mut batch = Vec::new();
    while consumer.next_batch(&mut batch).await {
        let Some(feed) = feed.upgrade() else { return };
        if let Err(reason) = feed.take(&mut packetiser, &batch, Instant::now()) {
            feed.end(reason);
            return;
        }
        batch.clear();
    }
    if let Some(feed) = feed.upgrade() {
        feed.end(End::Stream);
    }
}

/// Number of viewers with audio and video from which on audio is buffered; with fewer, it
/// saves too little.
const RIDERS_AT_LEAST: usize = 16;

enum Packetiser {
    Video(H264Packetiser),
    Audio(OpusPacketiser),
}

impl Packetiser {
    fn new(kind: MediaKind) -> Self {
        match kind {
            MediaKind::Video => Self::Video(H264Packetiser::default()),
            MediaKind::Audio => Self::Audio(OpusPacketiser),
        }
    }

    /// Checks that viewers can receive a frame.
    ///
    /// # Errors
    /// Returns the reason if they cannot.
    fn check(&self, frame: &Frame) -> Result<(), End> {
        match self {
            Self::Video(_) if frame.pts != frame.dts => Err(End::BFrames),
            Self::Video(_) if frame.track.codec != Codec::H264 => Err(End::Codec),
            Self::Audio(_) if frame.track.codec != Codec::Opus => Err(End::Codec),
            _ => Ok(()),
        }
    }

    /// Packetizes a frame that has passed [`Payloader::check`]. Returns `None` if it
    /// has no payload.
    fn packetise(&mut self, frame: &Frame) -> Option<PacketisedFrame> {
        match self {
            Self::Video(packetiser) => packetiser.packetise(frame),
            Self::Audio(packetiser) => packetiser.packetise(frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn media_clock_follows_drift_slowly_and_jumps_by_large_deviations() {
        let begin = Instant::now();
        let mut anchor = Anchor { at: begin, time: MediaTime::ZERO };
        anchor.follow(begin + Duration::from_millis(100), MediaTime::from_ms(116));
        assert_eq!(anchor.time.as_ms(), 101);
        assert_eq!(anchor.time_at(begin + Duration::from_millis(150)).as_ms(), 151);
        anchor.follow(begin + Duration::from_millis(200), MediaTime::from_ms(90_000));
        assert_eq!(anchor.time.as_ms(), 90_000);
    }
}
