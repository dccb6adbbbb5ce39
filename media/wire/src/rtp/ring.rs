//! A ring of the recent packets of one track: the latest GOP for new viewers, and at least 1.5 s
//! for retransmissions.
//!
//! The ring has no lock; callers that share it must add one. Frames and packets are numbered from
//! 0, without wrapping.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{PacketizedFrame, RingCursor};
use crate::MediaTime;

/// Minimum duration that a ring retains, within the limits below. Longer than any receiver waits
/// for a retransmission.
const MIN_RETENTION: MediaTime = MediaTime::from_ms(1_500);
/// Maximum number of frames: a GOP of 20 s at 60 frames per second.
const MAX_FRAMES: usize = 1_200;
/// Maximum total payload length: about 10 s at 20 Mbit/s.
const MAX_PAYLOAD_BYTES: usize = 24 << 20;

/// A ring of packetized frames, oldest first. A clone shares the payloads.
///
/// ```
/// use std::sync::Arc;
///
/// use bytes::Bytes;
/// use headwater_wire::codec::opus;
/// use headwater_wire::rtp::{OpusPacketizer, Ring};
/// use headwater_wire::{Frame, MediaTime};
///
/// let track = Arc::new(opus::track(opus::head(2, 312)).unwrap());
/// let mut ring = Ring::audio();
/// for n in 0..10 {
///     let time = MediaTime::from_ms(20 * n);
///     let payload = Bytes::from_static(b"\xfcone Opus packet");
///     let frame = Frame { track: Arc::clone(&track), dts: time, pts: time, key: true, payload };
///     ring.push(OpusPacketizer.packetize(&frame).unwrap());
/// }
///
/// // A viewer reports the loss of packet 7: find its frame and send the payload again.
/// let cursor = ring.find(7).unwrap();
/// let frame = ring.frame(cursor.frame).unwrap();
/// assert_eq!(frame.payload(cursor.packet), Some(&b"\xfcone Opus packet"[..]));
/// assert_eq!(frame.pts, MediaTime::from_ms(140));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Ring {
    frames: VecDeque<Arc<PacketizedFrame>>,
    /// Number of the oldest frame.
    oldest_frame: u64,
    /// Number of the next packet.
    next_packet: u64,
    last_key_frame: Option<u64>,
    payload_bytes: usize,
    /// True for audio: a decoder can start at every packet, so retention depends on time only.
    is_audio: bool,
}

impl Ring {
    /// Creates a ring for video, which retains the latest GOP.
    pub fn video() -> Self {
        Self::default()
    }

    /// Creates a ring for audio, which retains the last 1.5 s.
    pub fn audio() -> Self {
        Self { is_audio: true, ..Self::default() }
    }

    /// Returns the number of the next frame to be added.
    pub fn next_frame(&self) -> u64 {
        self.oldest_frame + self.frames.len() as u64
    }

    /// Returns the number of the oldest retained frame.
    pub fn oldest_frame(&self) -> u64 {
        self.oldest_frame
    }

    /// Adds a frame, numbers its packets, and returns a shared handle to it.
    pub fn push(&mut self, mut frame: PacketizedFrame) -> Arc<PacketizedFrame> {
        frame.first_packet = self.next_packet;
        let frame = Arc::new(frame);
        self.push_shared(Arc::clone(&frame));
        frame
    }

    /// Adds a frame whose packets another ring has numbered. It must be the next one.
    pub fn push_shared(&mut self, frame: Arc<PacketizedFrame>) {
        self.next_packet = frame.first_packet + u64::from(frame.len());
        if frame.key && !self.is_audio {
            self.last_key_frame = Some(self.next_frame());
        }
        self.payload_bytes += frame.payload_bytes();
        let newest = frame.pts;
        self.frames.push_back(frame);
        while let Some(oldest) = self.frames.front() {
            let over_limit = self.frames.len() > MAX_FRAMES || self.payload_bytes > MAX_PAYLOAD_BYTES;
            let needed =
                newest - oldest.pts < MIN_RETENTION || self.last_key_frame.is_some_and(|key| key <= self.oldest_frame);
            // Timestamps that jump back would retain old frames forever; the limits bound that too.
            if self.frames.len() == 1 || (needed && !over_limit) {
                break;
            }
            self.payload_bytes -= oldest.payload_bytes();
            self.frames.pop_front();
            self.oldest_frame += 1;
        }
    }

    /// Returns the frame with this number, if it was added and is still retained.
    pub fn frame(&self, number: u64) -> Option<&Arc<PacketizedFrame>> {
        self.frames.get(usize::try_from(number.checked_sub(self.oldest_frame)?).ok()?)
    }

    /// Returns the number of the frame at which a new viewer starts: for video, the latest key
    /// frame if it is retained; otherwise, and for audio, the next frame.
    pub fn start_frame(&self) -> u64 {
        self.last_key_frame.filter(|&key| key >= self.oldest_frame).unwrap_or_else(|| self.next_frame())
    }

    /// Returns true if a new viewer can start: for video, if a key frame is retained.
    pub fn has_start_frame(&self) -> bool {
        self.is_audio || self.last_key_frame.is_some_and(|key| key >= self.oldest_frame)
    }

    /// Returns the position of the packet with this number, if it is still retained.
    pub fn find(&self, packet: u64) -> Option<RingCursor> {
        let i = self.frames.partition_point(|frame| frame.first_packet <= packet).checked_sub(1)?;
        let within = u32::try_from(packet - self.frames[i].first_packet).ok()?;
        (within < self.frames[i].len()).then_some(RingCursor { frame: self.oldest_frame + i as u64, packet: within })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::packets::PayloadEnd;
    use super::*;

    fn frame(ms: i64, key: bool, packets: u32) -> PacketizedFrame {
        let bytes = Bytes::from(vec![0; packets as usize]);
        let payload_ends = (1..=packets).map(|end| PayloadEnd { end, padding: 0 }).collect();
        PacketizedFrame::new(MediaTime::from_ms(ms), 90_000, key, true, bytes, payload_ends)
    }

    #[test]
    fn latest_gop_and_minimum_duration_are_retained() {
        let mut ring = Ring::video();
        ring.push(frame(0, true, 5));
        for ms in (100..1_000).step_by(100) {
            ring.push(frame(ms, false, 2));
        }
        assert_eq!((ring.start_frame(), ring.oldest_frame(), ring.next_frame()), (0, 0, 10));
        ring.push(frame(1_000, true, 5));
        assert_eq!((ring.start_frame(), ring.oldest_frame()), (10, 0));
        ring.push(frame(1_700, false, 2));
        assert_eq!((ring.start_frame(), ring.oldest_frame()), (10, 3));
        ring.push(frame(60_000, false, 2));
        assert_eq!((ring.start_frame(), ring.oldest_frame()), (10, 10));
    }

    #[test]
    fn audio_is_retained_by_time_only_and_starts_at_the_next_packet() {
        let mut ring = Ring::audio();
        for ms in (0..5_000).step_by(20) {
            ring.push(frame(ms, true, 1));
        }
        assert_eq!(ring.start_frame(), ring.next_frame());
        assert_eq!(ring.next_frame() - ring.oldest_frame(), 75);
    }

    #[test]
    fn endless_gop_is_bounded() {
        let mut ring = Ring::video();
        ring.push(frame(0, true, 1));
        for ms in 1..3_000 {
            ring.push(frame(ms * 16, false, 1));
        }
        assert!(ring.next_frame() - ring.oldest_frame() <= MAX_FRAMES as u64);
        assert!(!ring.has_start_frame());
        assert_eq!(ring.start_frame(), ring.next_frame());
    }

    #[test]
    fn packet_is_found_by_its_number() {
        let mut ring = Ring::video();
        ring.push(frame(0, true, 5));
        ring.push(frame(40, false, 3));
        assert_eq!(ring.find(0), Some(RingCursor { frame: 0, packet: 0 }));
        assert_eq!(ring.find(4), Some(RingCursor { frame: 0, packet: 4 }));
        assert_eq!(ring.find(5), Some(RingCursor { frame: 1, packet: 0 }));
        assert_eq!(ring.find(7), Some(RingCursor { frame: 1, packet: 2 }));
        assert_eq!(ring.find(8), None);
    }
}
