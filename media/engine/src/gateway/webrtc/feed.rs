//! One track of a stream as RTP packets, made once for all its viewers.
//!
//! A task reads the hub and packetises; workers look into the ring when told. Both hold the lock for a moment per frame.
//!
//! Where many viewers get pictures and sound, sound waits for the next picture: it leaves with it as one message, and
//! no worker is woken for it alone.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use headwater_wire::rtp::{H264Packetiser, OpusPacketiser, PacketisedFrame, Ring};
use headwater_wire::{Codec, Frame, MediaKind, MediaTime};

use super::held::Held;
use super::mailbox::{Listener, Mailbox};
use crate::hub::{Consumer, Item, Stream};

/// Why a feed is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The publisher, or the rendition, has ended.
    Stream,
    /// B-frames have shown up.
    BFrames,
    /// The publisher has changed to a codec that viewers were not told of.
    Codec,
}

/// Which moment on the wall a media time belongs to, for sender reports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    at: Instant,
    time: MediaTime,
}

impl Anchor {
    /// The media time at `now`.
    pub(super) fn time_at(&self, now: Instant) -> MediaTime {
        self.time + MediaTime::from_duration(now.saturating_duration_since(self.at))
    }

    /// Follows the publisher's clock slowly, so that one late frame does not move it; jumps if it is far off.
    fn follow(&mut self, now: Instant, newest: MediaTime) {
        let expected = self.time_at(now);
        let error = newest - expected;
        let far = error.as_ms().unsigned_abs() > 500;
        self.at = now;
        self.time = if far { newest } else { expected + MediaTime::from_flicks(error.as_flicks() / 16) };
    }
}

/// A track on its way to viewers.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) id: u64,
    pub(super) kind: MediaKind,
    /// The same for all viewers; random per feed.
    pub(super) ssrc: u32,
    /// Added to every timestamp; random per feed (RFC 3550 §5.1).
    pub(super) timestamp_offset: u32,
    pub(super) clock_hz: u32,
    /// Where it comes from: the stream, or a rendition of it.
    pub(super) stream: Arc<Stream>,
    shared: Mutex<Shared>,
    /// Of pictures: the sound that may leave with them.
    sound: Mutex<Weak<Feed>>,
    /// Viewers of this track, and those among them who also get the other.
    viewers: AtomicUsize,
    riders: AtomicUsize,
}

#[derive(Debug)]
struct Shared {
    ring: Ring,
    held: Held,
    anchor: Option<Anchor>,
    ended: Option<End>,
    /// One per worker with viewers.
    listeners: Vec<Arc<Listener>>,
}

/// What a worker sees of a feed.
#[derive(Debug)]
pub(super) struct View {
    pub(super) anchor: Option<Anchor>,
    pub(super) ended: Option<End>,
}

impl Feed {
    /// Begins to read `stream`; ends with it, or at the first frame after the last handle is gone. Must be called inside
    /// the runtime.
    pub(super) fn start(stream: &Arc<Stream>, kind: MediaKind) -> Arc<Self> {
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

    /// Begins to tell `mailbox`, and gives what is there already.
    pub(super) fn listen(&self, mailbox: &Arc<Mailbox>) -> (Arc<Listener>, Ring, View) {
        let listener = Arc::new(Listener::new(Arc::clone(mailbox), self.id));
        let mut shared = self.lock();
        shared.listeners.push(Arc::clone(&listener));
        (listener, shared.ring.clone(), shared.view())
    }

    /// Ends what [`Feed::listen`] began.
    pub(super) fn unlisten(&self, listener: &Arc<Listener>) {
        self.lock().listeners.retain(|l| !Arc::ptr_eq(l, listener));
    }

    /// Brings a worker's copy of the ring up to date.
    pub(super) fn catch_up(&self, copy: &mut Ring) -> View {
        let shared = self.lock();
        if copy.end() < shared.ring.front() {
            *copy = shared.ring.clone();
        }
        while let Some(frame) = shared.ring.frame(copy.end()) {
            copy.push_shared(Arc::clone(frame));
        }
        shared.view()
    }

    /// These pictures have this sound.
    pub(super) fn carry(&self, sound: &Arc<Self>) {
        *self.sound.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(sound);
    }

    /// The sound that may leave with these pictures.
    pub(super) fn sound(&self) -> Option<Arc<Self>> {
        self.sound.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// A viewer has come; `rides` if it gets pictures and sound.
    pub(super) fn join(&self, rides: bool) {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        self.riders.fetch_add(usize::from(rides), Ordering::Relaxed);
    }

    /// A viewer has gone.
    pub(super) fn leave(&self, rides: bool) {
        self.viewers.fetch_sub(1, Ordering::Relaxed);
        self.riders.fetch_sub(usize::from(rides), Ordering::Relaxed);
    }

    /// Makes frames packets and tells the workers.
    ///
    /// # Errors
    /// With a frame that viewers cannot get.
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
        // Last, so that a worker finds the picture first, and the sound with it.
        if let Some(sound) = sound {
            sound.lock().tell();
        }
        items.get(usable).map_or(Ok(()), |item| packetiser.check(&item.frame))
    }

    /// Held sound goes into the ring. True if there are viewers who must be told: they get no pictures.
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

    /// True if there was any.
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

/// So many viewers with pictures and sound, and sound is held: below, there is nothing to save that matters.
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

    /// Whether viewers can get a frame.
    fn check(&self, frame: &Frame) -> Result<(), End> {
        match self {
            Self::Video(_) if frame.pts != frame.dts => Err(End::BFrames),
            Self::Video(_) if frame.track.codec != Codec::H264 => Err(End::Codec),
            Self::Audio(_) if frame.track.codec != Codec::Opus => Err(End::Codec),
            _ => Ok(()),
        }
    }

    /// The packets of a frame that is fit for them.
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
    fn the_anchor_follows_a_drifting_clock_and_jumps_with_one_that_jumps() {
        let begin = Instant::now();
        let mut anchor = Anchor { at: begin, time: MediaTime::ZERO };
        anchor.follow(begin + Duration::from_millis(100), MediaTime::from_ms(116));
        assert_eq!(anchor.time.as_ms(), 101);
        assert_eq!(anchor.time_at(begin + Duration::from_millis(150)).as_ms(), 151);
        anchor.follow(begin + Duration::from_millis(200), MediaTime::from_ms(90_000));
        assert_eq!(anchor.time.as_ms(), 90_000);
    }
}
