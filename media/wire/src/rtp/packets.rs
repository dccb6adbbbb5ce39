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
    cuts: Box<[Cut]>,
}

/// Where a payload ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// In the buffer, padding included.
    pub(super) end: u32,
    /// Bytes of padding; the last of them says how many (RFC 3550 §5.1). 0: none.
    pub(super) padding: u8,
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
    /// `cuts`: where each payload ends in `buffer`; must not decrease and not pass its end.
    pub(super) fn new(time: MediaTime, clock_hz: u32, key: bool, marker: bool, buffer: Bytes, cuts: Vec<Cut>) -> Self {
        debug_assert!(cuts.is_sorted_by_key(|c| c.end) && cuts.last().is_none_or(|c| c.end as usize <= buffer.len()));
        Self { first: 0, time, timestamp: time.to_rtp(clock_hz), key, marker, buffer, cuts: cuts.into() }
    }

    /// Number of packets.
    pub fn len(&self) -> u32 {
        self.cuts.len() as u32
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }

    /// Bytes of all payloads together.
    pub fn payload_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The payload of packet `i`, padding included, or `None` beyond the last.
    pub fn payload(&self, i: u32) -> Option<&[u8]> {
        let i = usize::try_from(i).ok()?;
        let end = self.cuts.get(i)?.end as usize;
        let begin = i.checked_sub(1).map_or(0, |before| self.cuts[before].end as usize);
        self.buffer.get(begin..end)
    }

    /// Bytes at the end of the payload of packet `i` that are padding.
    pub fn padding(&self, i: u32) -> u8 {
        usize::try_from(i).ok().and_then(|i| self.cuts.get(i)).map_or(0, |cut| cut.padding)
    }

    /// True if packet `i` bears the marker bit.
    pub fn is_marked(&self, i: u32) -> bool {
        self.marker && i + 1 == self.len()
    }
}
