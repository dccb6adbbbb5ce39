//! The RTP payloads of one frame. They are created once per stream and shared by all its viewers.

use bytes::Bytes;

use crate::MediaTime;

/// The RTP payloads of one frame, contiguous in one buffer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PacketisedFrame {
    /// Number of the first packet within the stream, from 0, without wrapping.
    pub first: u64,
    /// Presentation time of the frame.
    pub time: MediaTime,
    /// Presentation time in ticks of the RTP clock, modulo 2^32, without the random offset of RFC
    /// 3550 §5.1.
    pub timestamp: u32,
    /// True if a decoder can start here.
    pub key: bool,
    /// True if the last packet has the marker bit.
    pub marker: bool,
    buffer: Bytes,
    cuts: Box<[Cut]>,
}

/// The end of a payload in the buffer of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Offset of the end in the buffer, padding included.
    pub(super) end: u32,
    /// Number of padding bytes, also stored in the last one (RFC 3550 §5.1); 0 for none.
    pub(super) padding: u8,
}

/// The position of a packet in a [`super::Ring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Number of the frame within the stream, from 0.
    pub frame: u64,
    /// Index of the packet within the frame, from 0.
    pub packet: u32,
}

impl PacketisedFrame {
    /// Creates a frame whose payloads end at `payload_ends`, which must be ascending offsets in
    /// `buffer`.
    pub(super) fn new(time: MediaTime, clock_hz: u32, key: bool, marker: bool, buffer: Bytes, cuts: Vec<Cut>) -> Self {
        debug_assert!(cuts.is_sorted_by_key(|c| c.end) && cuts.last().is_none_or(|c| c.end as usize <= buffer.len()));
        Self { first: 0, time, timestamp: time.to_rtp(clock_hz), key, marker, buffer, cuts: cuts.into() }
    }

    /// Returns the number of packets.
    pub fn len(&self) -> u32 {
        self.cuts.len() as u32
    }

    /// Returns true if there are no packets.
    pub fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }

    /// Returns the total length of all payloads.
    pub fn payload_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the payload of packet `i`, padding included, or `None` after the last packet.
    pub fn payload(&self, i: u32) -> Option<&[u8]> {
        let i = usize::try_from(i).ok()?;
        let end = self.cuts.get(i)?.end as usize;
        let begin = i.checked_sub(1).map_or(0, |before| self.cuts[before].end as usize);
        self.buffer.get(begin..end)
    }

    /// Returns the number of padding bytes at the end of the payload of packet `i`.
    pub fn padding(&self, i: u32) -> u8 {
        usize::try_from(i).ok().and_then(|i| self.cuts.get(i)).map_or(0, |cut| cut.padding)
    }

    /// Returns true if packet `i` has the marker bit.
    pub fn is_marked(&self, i: u32) -> bool {
        self.marker && i + 1 == self.len()
    }
}
