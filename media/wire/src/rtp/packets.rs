//! One frame as RTP payloads: made once per stream, shared by all its viewers.

use bytes::Bytes;

use crate::MediaTime;

/// The payloads of one frame, back to back in one buffer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PacketisedFrame {
    /// Number of the first packet within the stream, counted from 0 and never wrapped.
    pub first: u64,
    /// When the frame must be shown.
    pub time: MediaTime,
    /// The same in ticks of the codec's clock, modulo 2^32, before any offset.
    pub timestamp: u32,
    /// True if a decoder may start here.
    pub key: bool,
    /// True if the last packet bears the marker bit.
    pub marker: bool,
    buffer: Bytes,
    /// Where each payload ends in `buffer`.
    ends: Box<[u32]>,
}

/// A packet within a ring: which frame, and which packet of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Number of the frame within the stream, counted from 0.
    pub frame: u64,
    /// Number of the packet within the frame, counted from 0.
    pub packet: u32,
}

impl PacketisedFrame {
    /// `ends`: where each payload ends in `buffer`; must not decrease and not pass its end.
    pub(super) fn new(time: MediaTime, clock_hz: u32, key: bool, marker: bool, buffer: Bytes, ends: Vec<u32>) -> Self {
        debug_assert!(ends.is_sorted() && ends.last().is_none_or(|&e| e as usize <= buffer.len()));
        Self { first: 0, time, timestamp: time.to_rtp(clock_hz), key, marker, buffer, ends: ends.into() }
    }

    /// Number of packets.
    pub fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all payloads together.
    pub fn payload_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The payload of packet `i`, or `None` beyond the last.
    pub fn payload(&self, i: u32) -> Option<&[u8]> {
        let i = usize::try_from(i).ok()?;
        let end = *self.ends.get(i)? as usize;
        let begin = i.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.buffer.get(begin..end)
    }

    /// True if packet `i` bears the marker bit.
    pub fn is_marked(&self, i: u32) -> bool {
        self.marker && i + 1 == self.len()
    }
}
