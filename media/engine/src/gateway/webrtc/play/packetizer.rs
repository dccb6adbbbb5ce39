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

use headwater_wire::rtp::{H264Packetizer, OpusPacketizer, PacketizedFrame, Ring};
use headwater_wire::{Codec, Frame, MediaKind, MediaTime};

use crate::gateway::webrtc::play::audio_batch::AudioBatch;
use crate::gateway::webrtc::play::presentation_order::PresentationOrder;
use crate::gateway::webrtc::play::ring_subscription::{RingSubscription, RingUpdates};
use crate::hub::{Consumer, Item, Stream};

/// Why a packetizer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketizerEnd {
    /// The stream or the rendition has ended.
    StreamEnded,
    /// The publisher has begun to send B-frames.
    BFrames,
    /// The publisher has changed to a codec that the viewers' answers do not list.
    CodecChanged,
}

/// Maps wall-clock time to media time, for sender reports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MediaClock {
    at: Instant,
    time: MediaTime,
}

impl MediaClock {
    /// Returns the media time at `now`.
    pub(crate) fn time_at(&self, now: Instant) -> MediaTime {
        self.time + MediaTime::from_duration(now.saturating_duration_since(self.at))
    }

    /// Adjusts the clock to a frame received at `now`: by 1/16 of the deviation, so that one late
    /// frame has little effect, or at once if the deviation exceeds 500 ms.
    fn update(&mut self, now: Instant, newest: MediaTime) {
        let expected = self.time_at(now);
        let error = newest - expected;
        let far = error.as_ms().unsigned_abs() > 500;
        self.at = now;
        self.time = if far { newest } else { expected + MediaTime::from_flicks(error.as_flicks() / 16) };
    }
}

/// The RTP packets of one track. Ends with its stream.
#[derive(Debug)]
pub(crate) struct StreamPacketizer {
    pub(crate) id: u64,
    pub(crate) kind: MediaKind,
    /// The same for all viewers; random per packetizer.
    pub(crate) ssrc: u32,
    /// Added to every timestamp; random per packetizer (RFC 3550 §5.1).
    pub(crate) timestamp_offset: u32,
    pub(crate) clock_hz: u32,
    /// The source: a published stream, or a rendition of it.
    pub(crate) stream: Arc<Stream>,
    shared: Mutex<PacketizerState>,
    /// Video only: the audio track that may leave with it.
    audio: Mutex<Weak<StreamPacketizer>>,
    /// Viewers of this track.
    viewers: AtomicUsize,
    /// Those among them that receive both audio and video.
    av_viewers: AtomicUsize,
}

#[derive(Debug)]
struct PacketizerState {
    ring: Ring,
    audio_batch: AudioBatch,
    media_clock: Option<MediaClock>,
    ended: Option<PacketizerEnd>,
    /// One per worker with viewers of this track.
    subscriptions: Vec<Arc<RingSubscription>>,
}

/// The state of a packetizer besides its ring, copied for a worker.
#[derive(Debug)]
pub(crate) struct PacketizerStatus {
    pub(crate) media_clock: Option<MediaClock>,
    pub(crate) ended: Option<PacketizerEnd>,
}

impl StreamPacketizer {
    /// Spawns a task that reads `stream`. The task ends with the stream, or at the first frame
    /// after the last handle was dropped. Must be called within a Tokio runtime.
    pub(crate) fn spawn(stream: &Arc<Stream>, kind: MediaKind) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let (ring, clock_hz) = match kind {
            MediaKind::Video => (Ring::video(), H264Packetizer::CLOCK_HZ),
            MediaKind::Audio => (Ring::audio(), OpusPacketizer::CLOCK_HZ),
        };
        let packetizer = Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            kind,
            ssrc: rand::random(),
            timestamp_offset: rand::random(),
            clock_hz,
            stream: Arc::clone(stream),
            shared: Mutex::new(PacketizerState {
                ring,
                audio_batch: AudioBatch::default(),
                media_clock: None,
                ended: None,
                subscriptions: Vec::new(),
            }),
            audio: Mutex::default(),
            viewers: AtomicUsize::new(0),
            av_viewers: AtomicUsize::new(0),
        });
        stream.affinity().spawn(run(Arc::downgrade(&packetizer), stream.consumer().only(kind), Payloader::new(kind)));
        packetizer
    }

    /// Subscribes a worker to updates. Returns the current ring and status as well.
    pub(crate) fn subscribe(&self, updates: &Arc<RingUpdates>) -> (Arc<RingSubscription>, Ring, PacketizerStatus) {
        let subscription = Arc::new(RingSubscription::new(Arc::clone(updates), self.id));
        let mut shared = self.lock();
        shared.subscriptions.push(Arc::clone(&subscription));
        (subscription, shared.ring.clone(), shared.status())
    }

    /// Ends a subscription made by [`StreamPacketizer::subscribe`].
    pub(crate) fn unsubscribe(&self, subscription: &Arc<RingSubscription>) {
        self.lock().subscriptions.retain(|s| !Arc::ptr_eq(s, subscription));
    }

    /// Appends the packets that a worker's copy of the ring lacks.
    pub(crate) fn sync_ring(&self, copy: &mut Ring) -> PacketizerStatus {
        let shared = self.lock();
        if copy.next_frame() < shared.ring.oldest_frame() {
            *copy = shared.ring.clone();
        }
        while let Some(frame) = shared.ring.frame(copy.next_frame()) {
            copy.push_shared(Arc::clone(frame));
        }
        shared.status()
    }

    /// Sets the audio track that may leave with this video track.
    pub(crate) fn attach_audio(&self, audio: &Arc<Self>) {
        *self.audio.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(audio);
    }

    /// Returns the audio track that may leave with this video track.
    pub(crate) fn audio(&self) -> Option<Arc<Self>> {
        self.audio.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Counts a viewer. `batches_audio`: it receives both audio and video.
    pub(crate) fn add_viewer(&self, batches_audio: bool) {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        self.av_viewers.fetch_add(usize::from(batches_audio), Ordering::Relaxed);
    }

    /// Undoes [`StreamPacketizer::add_viewer`] with the same argument.
    pub(crate) fn remove_viewer(&self, batches_audio: bool) {
        self.viewers.fetch_sub(1, Ordering::Relaxed);
        self.av_viewers.fetch_sub(usize::from(batches_audio), Ordering::Relaxed);
    }

    /// Packetizes frames and notifies the workers.
    ///
    /// # Errors
    /// Returns the reason if a frame cannot be sent to viewers. The frames before it are sent.
    fn packetize(&self, payloader: &mut Payloader, items: &[Item], now: Instant) -> Result<(), PacketizerEnd> {
        let batches = self.kind == MediaKind::Audio && self.av_viewers.load(Ordering::Relaxed) >= MIN_BATCHING_VIEWERS;
        let audio = self.audio().filter(|audio| audio.release_audio_batch());
        let mut shared = self.lock();
        let end = shared.ring.next_frame();
        let usable = items.iter().position(|item| self.check(&item.frame).is_err()).unwrap_or(items.len());
        for Item { frame, .. } in &items[..usable] {
            if batches {
                let overdue = shared.audio_batch.push(frame.clone());
                shared.push(payloader, &overdue);
            } else {
                shared.flush_audio_batch();
                shared.push(payloader, std::slice::from_ref(frame));
            }
        }
        if let Some(newest) = items[..usable].last() {
            shared.update_media_clock(now, newest.frame.pts);
        }
        if shared.ring.next_frame() > end {
            shared.notify_workers();
        }
        drop(shared);
        // Last, so that a worker handles the video frame first and sends the audio with it.
        if let Some(audio) = audio {
            audio.lock().notify_workers();
        }
        items.get(usable).map_or(Ok(()), |item| self.check(&item.frame))
    }

    /// Checks that viewers can receive a frame.
    ///
    /// # Errors
    /// Returns the reason if they cannot.
    fn check(&self, frame: &Frame) -> Result<(), PacketizerEnd> {
        match self.kind {
            MediaKind::Video if self.stream.has_b_frames() => Err(PacketizerEnd::BFrames),
            MediaKind::Video if frame.track.codec != Codec::H264 => Err(PacketizerEnd::CodecChanged),
            MediaKind::Audio if frame.track.codec != Codec::Opus => Err(PacketizerEnd::CodecChanged),
            _ => Ok(()),
        }
    }

    /// Appends buffered audio to the ring. Returns true if workers must be notified: there was
    /// some, and a viewer of this track receives no video.
    fn release_audio_batch(&self) -> bool {
        let mut shared = self.lock();
        shared.flush_audio_batch() && self.viewers.load(Ordering::Relaxed) > self.av_viewers.load(Ordering::Relaxed)
    }

    fn end(&self, reason: PacketizerEnd) {
        let mut shared = self.lock();
        shared.flush_audio_batch();
        shared.ended.get_or_insert(reason);
        shared.notify_workers();
    }

    fn lock(&self) -> MutexGuard<'_, PacketizerState> {
        // Every change under this lock is a single step.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PacketizerState {
    fn status(&self) -> PacketizerStatus {
        PacketizerStatus { media_clock: self.media_clock, ended: self.ended }
    }

    fn push(&mut self, payloader: &mut Payloader, frames: &[Frame]) {
        for packets in frames.iter().filter_map(|frame| payloader.packetize(frame)) {
            self.ring.push(packets);
        }
    }

    /// Appends buffered audio to the ring. Returns true if there was any.
    fn flush_audio_batch(&mut self) -> bool {
        let batch = self.audio_batch.take();
        self.push(&mut Payloader::Audio(OpusPacketizer), &batch);
        !batch.is_empty()
    }

    fn update_media_clock(&mut self, now: Instant, newest: MediaTime) {
        match &mut self.media_clock {
            Some(clock) => clock.update(now, newest),
            none => *none = Some(MediaClock { at: now, time: newest }),
        }
    }

    fn notify_workers(&self) {
        self.subscriptions.iter().for_each(|s| s.notify());
    }
}

async fn run(packetizer: Weak<StreamPacketizer>, mut consumer: Consumer, mut payloader: Payloader) {
    let mut batch = Vec::new();
    while consumer.next_batch(&mut batch).await {
        let Some(packetizer) = packetizer.upgrade() else { return };
        if let Err(reason) = packetizer.packetize(&mut payloader, &batch, Instant::now()) {
            packetizer.end(reason);
            return;
        }
        batch.clear();
    }
    if let Some(packetizer) = packetizer.upgrade() {
        packetizer.end(PacketizerEnd::StreamEnded);
    }
}

/// Number of viewers with audio and video from which on audio is buffered; with fewer, it
/// saves too little.
const MIN_BATCHING_VIEWERS: usize = 16;

enum Payloader {
    Video(H264Packetizer, PresentationOrder),
    Audio(OpusPacketizer),
}

impl Payloader {
    fn new(kind: MediaKind) -> Self {
        match kind {
            MediaKind::Video => Self::Video(H264Packetizer::default(), PresentationOrder::default()),
            MediaKind::Audio => Self::Audio(OpusPacketizer),
        }
    }

    /// Packetizes a frame that has passed [`StreamPacketizer::check`]. Returns `None` if it
    /// has no payload.
    fn packetize(&mut self, frame: &Frame) -> Option<PacketizedFrame> {
        match self {
            Self::Video(payloader, order) => match order.time_of(frame) {
                pts if pts == frame.pts => payloader.packetize(frame),
                pts => payloader.packetize(&Frame { pts, ..frame.clone() }),
            },
            Self::Audio(payloader) => payloader.packetize(frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use headwater_api::StreamName;
    use headwater_wire::{Track, VideoTrack};

    use super::*;
    use crate::hub::{Hub, Limits};

    /// Sends frames of 40 ms with these presentation times after their decoding times. Returns the
    /// number of frames in the ring, and why the packetizer ended.
    async fn packetize(offsets_ms: &[i64]) -> (u64, PacketizerEnd) {
        let name = StreamName::new("live", "a").unwrap();
        let mut producer = Hub::new(Limits::default()).publish(&name, "test").unwrap();
        let video = Some(VideoTrack::default());
        let (codec, config) = (Codec::H264, Bytes::new());
        let track = Arc::new(Track { codec, config, codec_string: None, video, audio: None });
        let packetizer = StreamPacketizer::spawn(producer.stream(), MediaKind::Video);
        for (n, &offset_ms) in (0..).zip(offsets_ms) {
            let dts = MediaTime::from_ms(40 * n);
            let pts = dts + MediaTime::from_ms(offset_ms);
            let payload = Bytes::from_static(&[0, 0, 0, 2, 0x65, 0x88]);
            producer.send(Frame { track: Arc::clone(&track), dts, pts, key: n == 0, payload });
        }
        drop(producer);
        loop {
            {
                let shared = packetizer.lock();
                if let Some(end) = shared.ended {
                    return (shared.ring.next_frame(), end);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn offset_of_presentation_times_is_no_reason_to_refuse_viewers() {
        for offsets in [[40; 12], [-34; 12], [0, 0, 0, 0, -34, -34, -34, -34, 0, 0, 0, 0]] {
            assert_eq!(packetize(&offsets).await, (12, PacketizerEnd::StreamEnded), "{offsets:?}");
        }
    }

    #[tokio::test]
    async fn reordered_frames_end_the_packetizer() {
        let (frames, end) = packetize(&[80, 200, 40, 0, 200, 40, 0, 200, 40, 0]).await;
        assert!(frames < 10 && end == PacketizerEnd::BFrames, "{frames} frames, {end:?}");
    }

    #[test]
    fn media_clock_follows_drift_slowly_and_jumps_by_large_deviations() {
        let begin = Instant::now();
        let mut clock = MediaClock { at: begin, time: MediaTime::ZERO };
        clock.update(begin + Duration::from_millis(100), MediaTime::from_ms(116));
        assert_eq!(clock.time.as_ms(), 101);
        assert_eq!(clock.time_at(begin + Duration::from_millis(150)).as_ms(), 151);
        clock.update(begin + Duration::from_millis(200), MediaTime::from_ms(90_000));
        assert_eq!(clock.time.as_ms(), 90_000);
    }
}
