//! Opus over RTP: one packet is one payload (RFC 7587 §4.2). The clock rate is always 48 kHz
//! (RFC 7587 §4.1).

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};

use super::PacketizedFrame;
use super::packets::PayloadEnd;
use crate::{Frame, MediaTime};

/// Converts Opus packets to RTP payloads.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpusPacketizer;

impl OpusPacketizer {
    /// RTP clock rate, in ticks per second.
    pub const CLOCK_HZ: u32 = 48_000;

    /// Returns the payload of one Opus packet, or `None` if it is empty or too long for one
    /// datagram.
    pub fn packetize(self, frame: &Frame) -> Option<PacketizedFrame> {
        let len = frame.payload.len();
        if len == 0 || len > super::PAYLOAD_BUDGET_BYTES {
            return None;
        }
        let whole = PayloadEnd { end: len as u32, padding: 0 };
        Some(PacketizedFrame::new(frame.pts, Self::CLOCK_HZ, true, false, frame.payload.clone(), vec![whole]))
    }

    /// Merges two packets of one Opus frame each into one packet without re-encoding (RFC 6716
    /// §3.2.3, §3.2.4). Returns `None` if their TOC bytes differ, a packet does not contain exactly
    /// one frame, there is a gap between them, or the result is too long for one datagram.
    pub fn merge(self, first: &Frame, second: &Frame) -> Option<Frame> {
        let ((toc, a), (second_toc, b)) = (first.payload.split_first()?, second.payload.split_first()?);
        let one_each = toc & FRAME_COUNT_MASK == 0 && toc == second_toc;
        let gap = second.pts - first.pts - frame_duration(*toc);
        let fits = first.payload.len() + second.payload.len() + MAX_LENGTH_BYTES <= super::PAYLOAD_BUDGET_BYTES;
        if !one_each || gap.as_ms() != 0 || !fits {
            return None;
        }
        let mut payload = BytesMut::with_capacity(first.payload.len() + second.payload.len() + MAX_LENGTH_BYTES);
        if a.len() == b.len() {
            payload.put_u8(toc | TWO_EQUAL_FRAMES);
        } else {
            payload.put_u8(toc | TWO_UNEQUAL_FRAMES);
            // The length takes one byte up to 251, otherwise two (RFC 6716 §3.2.1).
            let low = if a.len() < 252 { a.len() } else { 252 + a.len() % 4 };
            payload.put_u8(low as u8);
            if low >= 252 {
                payload.put_u8(((a.len() - low) / 4) as u8);
            }
        }
        payload.put_slice(a);
        payload.put_slice(b);
        Some(Frame { track: Arc::clone(&first.track), payload: payload.freeze(), ..*first })
    }
}

/// Returns the duration of one frame of a packet with this TOC byte (RFC 6716 §3.1, table 2).
fn frame_duration(toc: u8) -> MediaTime {
    let config = usize::from(toc >> 3);
    let ticks = match config {
        0..=11 => [480, 960, 1_920, 2_880][config % 4],
        12..=15 => [480, 960][config % 2],
        _ => [120, 240, 480, 960][config % 4],
    };
    MediaTime::from_ticks(ticks, OpusPacketizer::CLOCK_HZ)
}

/// The bits of the TOC byte that contain the frame count code (RFC 6716 §3.1).
const FRAME_COUNT_MASK: u8 = 3;
const TWO_EQUAL_FRAMES: u8 = 1;
const TWO_UNEQUAL_FRAMES: u8 = 2;
/// Maximum size of the length field of a frame.
const MAX_LENGTH_BYTES: usize = 2;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::opus;
    use crate::{Codec, Track};

    /// TOC byte of a stereo CELT packet of 20 ms.
    const TOC: u8 = 0xfc;

    fn frame(ms: i64, toc: u8, len: usize) -> Frame {
        let track = Track { codec: Codec::Opus, config: Bytes::new(), codec_string: None, video: None, audio: None };
        let time = MediaTime::from_ms(ms);
        let payload = std::iter::once(toc).chain(std::iter::repeat_n(ms as u8, len)).collect();
        Frame { track: Arc::new(track), dts: time, pts: time, key: true, payload }
    }

    fn merged(a: usize, b: usize) -> Option<Vec<u8>> {
        let frame = OpusPacketizer.merge(&frame(1, TOC, a), &frame(21, TOC, b))?;
        assert_eq!(frame.pts.as_ms(), 1);
        Some(frame.payload.to_vec())
    }

    #[test]
    fn merged_packet_has_a_length_field_only_for_frames_of_unequal_size() {
        assert_eq!(merged(2, 2).unwrap(), [TOC | 1, 1, 1, 21, 21]);
        assert_eq!(merged(2, 1).unwrap(), [TOC | 2, 2, 1, 1, 21]);
        assert_eq!(merged(251, 1).unwrap()[..2], [TOC | 2, 251]);
        assert_eq!(merged(252, 1).unwrap()[..3], [TOC | 2, 252, 0]);
        assert_eq!(merged(255, 1).unwrap()[..3], [TOC | 2, 255, 0]);
        assert_eq!(merged(259, 1).unwrap()[..3], [TOC | 2, 255, 1]);
        assert_eq!(merged(0, 1).unwrap(), [TOC | 2, 0, 21]);
    }

    #[test]
    fn packets_that_differ_in_kind_or_have_a_gap_are_not_merged() {
        let first = frame(0, TOC, 5);
        for second in [
            frame(19, TOC, 5),
            frame(40, TOC, 5),
            frame(20, TOC | 1, 6),
            frame(20, 0x00, 5),
            Frame { payload: Bytes::new(), ..frame(20, TOC, 0) },
        ] {
            assert!(OpusPacketizer.merge(&first, &second).is_none(), "{second:?}");
        }
        assert!(merged(700, 700).is_none());
    }

    /// Returns true if the packets were merged. The result must then contain both bodies and last
    /// as long as both packets.
    fn merge_and_check(first: &Frame, second: &Frame) -> bool {
        let Some(merged) = OpusPacketizer.merge(first, second) else { return false };
        let bodies = [&first.payload[1..], &second.payload[1..]].concat();
        assert!(merged.payload.ends_with(&bodies) && merged.payload.len() <= super::super::PAYLOAD_BUDGET_BYTES);
        let samples = |frame: &Frame| opus::packet_samples(&frame.payload);
        assert_eq!(samples(&merged), samples(first).map(|samples| 2 * samples));
        true
    }

    #[test]
    fn packets_are_merged_only_if_both_have_the_same_single_frame_toc() {
        for toc in 0..=u8::MAX {
            let first = frame(1, toc, 5);
            let second = Frame { pts: first.pts + frame_duration(toc), ..frame(1, toc, 7) };
            assert_eq!(merge_and_check(&first, &second), toc & FRAME_COUNT_MASK == 0, "{toc:#x}");
        }
    }

    #[test]
    fn no_prefix_and_no_flipped_bit_of_a_packet_panics() {
        let (first, second) = (frame(1, TOC, 300), frame(21, TOC, 251));
        for whole in [&first, &second] {
            let changed = |payload| {
                let changed = Frame { payload, ..whole.clone() };
                if whole.pts == first.pts {
                    merge_and_check(&changed, &second)
                } else {
                    merge_and_check(&first, &changed)
                }
            };
            for end in 0..whole.payload.len() {
                assert_eq!(changed(whole.payload.slice(..end)), end > 0, "{end}");
            }
            for (at, bit) in (0..whole.payload.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut flipped = whole.payload.to_vec();
                flipped[at] ^= 1 << bit;
                assert_eq!(changed(flipped.into()), at > 0, "bit {bit} of byte {at}");
            }
        }
    }
}
