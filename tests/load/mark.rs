//! The send-time mark: an SEI message before each video frame that contains the time it was sent.
//!
//! The publisher writes it and viewers on the same host read it, so latency needs no clock
//! synchronization. The mark is user data unregistered (ITU-T H.264 Annex D.1.7), which every
//! server passes on unchanged. This file must not know how frames are transported.

use nix::time::{ClockId, clock_gettime};

/// Send time and number of a video frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// `CLOCK_MONOTONIC` at the moment of sending, in nanoseconds.
    pub(crate) sent_ns: u64,
    /// Frame number of one publisher, from 0; a gap is a lost frame.
    pub(crate) frame: u32,
}

/// Length of the NAL unit that carries a mark, without its length prefix.
pub(crate) const NAL_BYTES: usize = 3 + PAYLOAD_BYTES + 1;

impl Mark {
    /// A mark with the current time.
    pub(crate) fn now(frame: u32) -> Self {
        Self { sent_ns: now_ns(), frame }
    }

    /// Appends the SEI NAL unit with a 4-byte length prefix.
    ///
    /// Every byte of a number has its top bit set, so that emulation prevention (ITU-T H.264
    /// §7.4.1) is never needed.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(NAL_BYTES as u32).to_be_bytes());
        out.extend_from_slice(&[0x06, 0x05, PAYLOAD_BYTES as u8]);
        out.extend_from_slice(&UUID);
        out.extend((0..SENT_BYTES).map(|i| 0x80 | (self.sent_ns >> (7 * i)) as u8));
        out.extend((0..FRAME_NUMBER_BYTES).map(|i| 0x80 | (self.frame >> (7 * i)) as u8));
        out.push(0x80);
    }

    /// The first mark in `bytes`, and the offset after it.
    pub(crate) fn find(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut from = 0;
        while let Some(at) = bytes[from..].iter().position(|b| *b == UUID[0]) {
            let start = from + at;
            let numbers = start + UUID.len();
            let end = start + PAYLOAD_BYTES;
            if bytes.len() < end {
                return None;
            }
            if bytes[start..numbers] == UUID {
                let (sent, frame) = bytes[numbers..end].split_at(SENT_BYTES);
                let number = |part: &[u8]| part.iter().rev().fold(0u64, |n, b| n << 7 | u64::from(b & 0x7f));
                return Some((Self { sent_ns: number(sent), frame: number(frame) as u32 }, end));
            }
            from = start + 1;
        }
        None
    }

    /// Every mark in `bytes`, in order.
    pub(crate) fn all(bytes: &[u8]) -> Vec<Self> {
        let mut found = Vec::new();
        let mut rest = bytes;
        while let Some((mark, end)) = Self::find(rest) {
            found.push(mark);
            rest = &rest[end..];
        }
        found
    }

    /// Age of the mark, in microseconds.
    pub(crate) fn age_us(self) -> u32 {
        u32::try_from(now_ns().saturating_sub(self.sent_ns) / 1_000).unwrap_or(u32::MAX)
    }
}

/// `CLOCK_MONOTONIC`, in nanoseconds. All processes of a host share it.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux always has this clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

const UUID: [u8; 16] = *b"HeadwaterLoadRun";
const SENT_BYTES: usize = 10;
const FRAME_NUMBER_BYTES: usize = 5;
const PAYLOAD_BYTES: usize = UUID.len() + SENT_BYTES + FRAME_NUMBER_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_in_a_segment_is_read_back() {
        let marks = [Mark { sent_ns: u64::MAX >> 1, frame: 7 }, Mark { sent_ns: 0, frame: u32::MAX }];
        let mut bytes = b"HHHeadwater".to_vec();
        for mark in marks {
            mark.write(&mut bytes);
            bytes.extend_from_slice(b"slice");
        }
        assert_eq!(Mark::all(&bytes), marks);
    }

    #[test]
    fn a_truncated_mark_is_ignored() {
        let mut bytes = Vec::new();
        Mark { sent_ns: 1, frame: 2 }.write(&mut bytes);
        assert!((0..bytes.len() - 1).all(|n| Mark::find(&bytes[..n]).is_none()));
    }
}
