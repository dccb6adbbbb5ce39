//! The packets of one track that are still of use: the last key group for new viewers, and a second or two for
//! retransmissions.
//!
//! A plain value: whoever shares it brings the lock. Frames and packets are numbered from 0, without wrapping.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{PacketisedFrame, Place};
use crate::MediaTime;

/// What a ring keeps at least, if its limits allow: longer than any receiver waits for a retransmission.
const KEEP: MediaTime = MediaTime::from_ms(1_500);
/// Frames at most: a key group of 20 s at 60 pictures a second.
const MAX_FRAMES: usize = 1_200;
/// Payload bytes at most: 10 s at 20 Mbit/s.
const MAX_BYTES: usize = 24 << 20;

/// Packetised frames, oldest first. Cloning it copies handles, not payloads.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    frames: VecDeque<Arc<PacketisedFrame>>,
    /// Number of the front frame.
    front: u64,
    /// Number of the next packet.
    next_packet: u64,
    last_key: Option<u64>,
    bytes: usize,
    /// True for sound: every packet is a key, so only time decides what is kept.
    any_start: bool,
}

impl Ring {
    /// For pictures: keeps the last key group.
    pub fn pictures() -> Self {
        Self::default()
    }

    /// For sound: keeps the last second or two.
    pub fn sound() -> Self {
        Self { any_start: true, ..Self::default() }
    }

    /// Number the next frame will get.
    pub fn end(&self) -> u64 {
        self.front + self.frames.len() as u64
    }

    /// Number of the oldest frame kept.
    pub fn front(&self) -> u64 {
        self.front
    }

    /// Adds a frame, numbers its packets, and gives the shared handle to it.
    pub fn push(&mut self, mut frame: PacketisedFrame) -> Arc<PacketisedFrame> {
        frame.first = self.next_packet;
        let frame = Arc::new(frame);
        self.push_shared(Arc::clone(&frame));
        frame
    }

    /// Adds a frame that another ring has numbered. It must be the next one.
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
            // A clock that jumps back would keep old frames for ever; the limits end that too.
            if self.frames.len() == 1 || (of_use && !too_much) {
                break;
            }
            self.bytes -= oldest.payload_bytes();
            self.frames.pop_front();
            self.front += 1;
        }
    }

    /// The frame with this number, if it has come and is still here.
    pub fn frame(&self, number: u64) -> Option<&Arc<PacketisedFrame>> {
        self.frames.get(usize::try_from(number.checked_sub(self.front)?).ok()?)
    }

    /// Where a new viewer starts: the last key frame for pictures (or the next one to come, if that is gone already),
    /// the next packet for sound.
    pub fn start(&self) -> u64 {
        self.last_key.filter(|&key| key >= self.front).unwrap_or_else(|| self.end())
    }

    /// True if a new viewer of pictures has something to start with.
    pub fn has_start(&self) -> bool {
        self.any_start || self.last_key.is_some_and(|key| key >= self.front)
    }

    /// The place of the packet with this number, if it is still here.
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
    fn the_last_key_group_and_what_may_be_asked_for_again_are_kept() {
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
    fn sound_is_kept_by_time_alone_and_starts_at_the_next_packet() {
        let mut ring = Ring::sound();
        for ms in (0..5_000).step_by(20) {
            ring.push(frame(ms, true, 1));
        }
        assert_eq!(ring.start(), ring.end());
        assert_eq!(ring.end() - ring.front(), 75);
    }

    #[test]
    fn a_group_without_end_is_bounded() {
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
    fn a_packet_is_found_by_its_number() {
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
