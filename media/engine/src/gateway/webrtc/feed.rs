//! One track of a stream as RTP packets, made once for all its viewers.
//!
//! A task reads the hub and packetises; workers look into the ring when told. Both hold the lock for a moment per frame.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use headwater_wire::rtp::{H264Packetiser, OpusPacketiser, PacketisedFrame, Ring};
use headwater_wire::{Codec, Frame, MediaKind, MediaTime};

use super::mailbox::{Listener, Mailbox};
use crate::hub::{Consumer, Stream};
use crate::lanes::spawn_shared;

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
}

#[derive(Debug)]
struct Shared {
    ring: Ring,
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
            shared: Mutex::new(Shared { ring, anchor: None, ended: None, listeners: Vec::new() }),
        });
        spawn_shared(read(Arc::downgrade(&feed), stream.consumer(), Packetiser::new(kind)));
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

    fn push(&self, frames: Vec<PacketisedFrame>, now: Instant) {
        let Some(newest) = frames.last().map(|f| f.time) else { return };
        let mut shared = self.lock();
        match &mut shared.anchor {
            Some(anchor) => anchor.follow(now, newest),
            none => *none = Some(Anchor { at: now, time: newest }),
        }
        for frame in frames {
            shared.ring.push(frame);
        }
        shared.listeners.iter().for_each(|l| l.tell());
    }

    fn end(&self, end: End) {
        let mut shared = self.lock();
        shared.ended.get_or_insert(end);
        shared.listeners.iter().for_each(|l| l.tell());
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
}

async fn read(feed: Weak<Feed>, mut consumer: Consumer, mut packetiser: Packetiser) {
    let mut batch = Vec::new();
    while consumer.next_batch(&mut batch).await {
        let Some(feed) = feed.upgrade() else { return };
        let mut frames = Vec::with_capacity(batch.len());
        let mut end = None;
        for item in batch.drain(..) {
            match packetiser.packetise(&item.frame) {
                Ok(packets) => frames.extend(packets),
                Err(reason) => {
                    end = Some(reason);
                    break;
                }
            }
        }
        feed.push(frames, Instant::now());
        if let Some(reason) = end {
            feed.end(reason);
            return;
        }
    }
    if let Some(feed) = feed.upgrade() {
        feed.end(End::Stream);
    }
}

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

    /// The packets of a frame; none for a frame of the other kind.
    fn packetise(&mut self, frame: &Frame) -> Result<Option<PacketisedFrame>, End> {
        match (self, frame.kind()) {
            (Self::Video(_), MediaKind::Video) if frame.pts != frame.dts => Err(End::BFrames),
            (Self::Video(_), MediaKind::Video) if frame.track.codec != Codec::H264 => Err(End::Codec),
            (Self::Audio(_), MediaKind::Audio) if frame.track.codec != Codec::Opus => Err(End::Codec),
            (Self::Video(packetiser), MediaKind::Video) => Ok(packetiser.packetise(frame)),
            (Self::Audio(packetiser), MediaKind::Audio) => Ok(packetiser.packetise(frame)),
            _ => Ok(None),
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
