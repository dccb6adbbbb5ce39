//! The RTP payloads of one frame. They are created once per stream and shared by all its viewers.

use bytes::Bytes;

use crate::MediaTime;

/// The RTP payloads of one frame, contiguous in one buffer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PacketizedFrame {
    /// Number of the first packet within the stream, from 0, without wrapping.
    pub first_packet: u64,
    /// Presentation time of the frame.
    pub pts: MediaTime,
    /// Presentation time in ticks of the RTP clock, modulo 2^32, without the random offset of RFC
    /// 3550 §5.1.
    pub timestamp: u32,
    /// True if a decoder can start here.
    pub key: bool,
    /// True if the last packet has the marker bit.
    pub marker: bool,
    buffer: Bytes,
    payload_ends: Box<[PayloadEnd]>,
}

/// The end of a payload in the buffer of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PayloadEnd {
    /// Offset of the end in the buffer, padding included.
    pub(super) end: u32,
    /// Number of padding bytes, also stored in the last one (RFC 3550 §5.1); 0 for none.
    pub(super) padding: u8,
}

/// The position of a packet in a [`super::Ring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RingCursor {
    /// Number of the frame within the stream, from 0.
    pub frame: u64,
    /// Index of the packet within the frame, from 0.
    pub packet: u32,
}

impl PacketizedFrame {
    /// Creates a frame whose payloads end at `payload_ends`, which must be ascending offsets in
    /// `buffer`.
    pub(super) fn new(
        pts: MediaTime,
        clock_hz: u32,
        key: bool,
        marker: bool,
        buffer: Bytes,
        payload_ends: Vec<PayloadEnd>,
    ) -> Self {
        debug_assert!(
            payload_ends.is_sorted_by_key(|c| c.end)
                && payload_ends.last().is_none_or(|c| c.end as usize <= buffer.len())
        );
        Self {
            first_packet: 0,
            pts,
            timestamp: pts.to_rtp(clock_hz),
            key,
            marker,
            buffer,
            payload_ends: payload_ends.into(),
        }
    }

    /// Returns the number of packets.
    pub fn len(&self) -> u32 {
        self.payload_ends.len() as u32
    }

    /// Returns true if there are no packets.
    pub fn is_empty(&self) -> bool {
        self.payload_ends.is_empty()
    }

    /// Returns the total length of all payloads.
    pub fn payload_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the payload of packet `i`, padding included, or `None` after the last packet.
    pub fn payload(&self, i: u32) -> Option<&[u8]> {
        let i = usize::try_from(i).ok()?;
        let end = self.payload_ends.get(i)?.end as usize;
        let begin = i.checked_sub(1).map_or(0, |before| self.payload_ends[before].end as usize);
        self.buffer.get(begin..end)
    }

    /// Returns the number of padding bytes at the end of the payload of packet `i`.
    pub fn padding_bytes(&self, i: u32) -> u8 {
        usize::try_from(i).ok().and_then(|i| self.payload_ends.get(i)).map_or(0, |end| end.padding)
    }

    /// Returns true if packet `i` has the marker bit.
    pub fn has_marker(&self, i: u32) -> bool {
        self.marker && i + 1 == self.len()
    }
}
