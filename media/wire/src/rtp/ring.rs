//! A ring of the recent packets of one track: the latest GOP for new viewers, and at least 1.5 s
//! for retransmissions.
//!
//! The ring has no lock; callers that share it must add one. Frames and packets are numbered from
//! 0, without wrapping.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{PacketisedFrame, Place};
use crate::MediaTime;

/// Minimum duration that a ring retains, within the limits below. Longer than any receiver waits
/// for a retransmission.
const KEEP: MediaTime = MediaTime::from_ms(1_500);
/// Maximum number of frames: a GOP of 20 s at 60 frames per second.
const MAX_FRAMES: usize = 1_200;
/// Maximum total payload length: about 10 s at 20 Mbit/s.
const MAX_BYTES: usize = 24 << 20;

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
    frames: VecDeque<Arc<PacketisedFrame>>,
    /// Number of the oldest frame.
    front: u64,
    /// Number of the next packet.
    next_packet: u64,
    last_key: Option<u64>,
    bytes: usize,
    /// True for audio: a decoder can start at every packet, so retention depends on time only.
    any_start: bool,
}

impl Ring {
    /// Creates a ring for video, which retains the latest GOP.
    pub fn pictures() -> Self {
        Self::default()
    }

    /// Creates a ring for audio, which retains the last 1.5 s.
    pub fn sound() -> Self {
        Self { any_start: true, ..Self::default() }
    }

    /// Returns the number of the next frame to be added.
    pub fn end(&self) -> u64 {
        self.front + self.frames.len() as u64
    }

    /// Returns the number of the oldest retained frame.
    pub fn front(&self) -> u64 {
        self.front
    }

    /// Adds a frame, numbers its packets, and returns a shared handle to it.
    pub fn push(&mut self, mut frame: PacketisedFrame) -> Arc<PacketisedFrame> {
        frame.first = self.next_packet;
        let frame = Arc::new(frame);
        self.push_shared(Arc::clone(&frame));
        frame
    }

    /// Adds a frame whose packets another ring has numbered. It must be the next one.
    pub fn push_shared(&mut self, frame: Arc<PacketisedFrame>) {
        self.next_packet = frame.first + u64::from(frame.len());
        if frame.key && !self.any_start {
            self.last_key = Some(self.end());
        }
        self.bytes += frame.payload_bytes();
        let newest = frame.time;
        self.frames.push_back(frame);
        while let Some(oldest) = self.frames.front() {
            let too_much = self.frames.len() > MAX_FRAMES || self.bytes > MAX_BYTES;
            let of_use = newest - oldest.time < KEEP || self.last_key.is_some_and(|key| key <= self.front);
            // Timestamps that jump back would retain old frames forever; the limits bound that too.
            if self.frames.len() == 1 || (of_use && !too_much) {
                break;
            }
            self.bytes -= oldest.payload_bytes();
            self.frames.pop_front();
            self.front += 1;
        }
    }

    /// Returns the frame with this number, if it was added and is still retained.
    pub fn frame(&self, number: u64) -> Option<&Arc<PacketisedFrame>> {
        self.frames.get(usize::try_from(number.checked_sub(self.front)?).ok()?)
    }

    /// Returns the number of the frame at which a new viewer starts: for video, the latest key
    /// frame if it is retained; otherwise, and for audio, the next frame.
    pub fn start(&self) -> u64 {
        self.last_key.filter(|&key| key >= self.front).unwrap_or_else(|| self.end())
    }

    /// Returns true if a new viewer can start: for video, if a key frame is retained.
    pub fn has_start(&self) -> bool {
        self.any_start || self.last_key.is_some_and(|key| key >= self.front)
    }

    /// Returns the position of the packet with this number, if it is still retained.
    pub fn find(&self, packet: u64) -> Option<Place> {
        let i = self.frames.partition_point(|frame| frame.first <= packet).checked_sub(1)?;
        let within = u32::try_from(packet - self.frames[i].first).ok()?;
        (within < self.frames[i].len()).then_some(Place { frame: self.front + i as u64, packet: within })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::packets::Cut;
    use super::*;

    fn frame(ms: i64, key: bool, packets: u32) -> PacketisedFrame {
        let bytes = Bytes::from(vec![0; packets as usize]);
        let cuts = (1..=packets).map(|end| Cut { end, padding: 0 }).collect();
        PacketisedFrame::new(MediaTime::from_ms(ms), 90_000, key, true, bytes, cuts)
    }

    #[test]
    fn latest_gop_and_minimum_duration_are_retained() {
        let mut ring = Ring::pictures();
        ring.push(frame(0, true, 5));
        for ms in (100..1_000).step_by(100) {
            ring.push(frame(ms, false, 2));
        }
        assert_eq!((ring.start(), ring.front(), ring.end()), (0, 0, 10));
        ring.push(frame(1_000, true, 5));
        assert_eq!((ring.start(), ring.front()), (10, 0));
        ring.push(frame(1_700, false, 2));
        assert_eq!((ring.start(), ring.front()), (10, 3));
        ring.push(frame(60_000, false, 2));
        assert_eq!((ring.start(), ring.front()), (10, 10));
    }

    #[test]
    fn audio_is_retained_by_time_only_and_starts_at_the_next_packet() {
        let mut ring = Ring::sound();
        for ms in (0..5_000).step_by(20) {
            ring.push(frame(ms, true, 1));
        }
        assert_eq!(ring.start(), ring.end());
        assert_eq!(ring.end() - ring.front(), 75);
    }

    #[test]
    fn endless_gop_is_bounded() {
        let mut ring = Ring::pictures();
        ring.push(frame(0, true, 1));
        for ms in 1..3_000 {
            ring.push(frame(ms * 16, false, 1));
        }
        assert!(ring.end() - ring.front() <= MAX_FRAMES as u64);
        assert!(!ring.has_start());
        assert_eq!(ring.start(), ring.end());
    }

    #[test]
    fn packet_is_found_by_its_number() {
        let mut ring = Ring::pictures();
        ring.push(frame(0, true, 5));
        ring.push(frame(40, false, 3));
        assert_eq!(ring.find(0), Some(Place { frame: 0, packet: 0 }));
        assert_eq!(ring.find(4), Some(Place { frame: 0, packet: 4 }));
        assert_eq!(ring.find(5), Some(Place { frame: 1, packet: 0 }));
        assert_eq!(ring.find(7), Some(Place { frame: 1, packet: 2 }));
        assert_eq!(ring.find(8), None);
    }
}
