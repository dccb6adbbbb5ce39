//! Opus over RTP: one packet is one payload (RFC 7587 §4.2). The clock is 48 kHz whatever the sound (§4.1).

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};

use super::PacketisedFrame;
use super::packets::Cut;
use crate::{Frame, MediaTime};

/// Turns Opus packets into RTP payloads.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpusPacketiser;

impl OpusPacketiser {
    /// Ticks per second.
    pub const CLOCK_HZ: u32 = 48_000;

    /// The payload of one Opus packet; `None` if it is empty or too long to send in one datagram.
    pub fn packetise(self, frame: &Frame) -> Option<PacketisedFrame> {
        let len = frame.payload.len();
        if len == 0 || len > super::PAYLOAD_BUDGET_BYTES {
            return None;
        }
        let whole = Cut { end: len as u32, padding: 0 };
        Some(PacketisedFrame::new(frame.pts, Self::CLOCK_HZ, true, false, frame.payload.clone(), vec![whole]))
    }

    /// Two packets of one frame each as one packet of both, or `None` if they are of another kind, do not follow each other
    /// without a gap, or are too long together. Nothing is encoded anew (RFC 6716 §3.2.3 and §3.2.4).
    pub fn join(self, first: &Frame, second: &Frame) -> Option<Frame> {
        let ((toc, a), (other, b)) = (first.payload.split_first()?, second.payload.split_first()?);
        let one_each = toc & FRAMES_MASK == 0 && toc == other;
        let gap = second.pts - first.pts - duration(*toc);
        let fits = first.payload.len() + second.payload.len() + LENGTH_BYTES <= super::PAYLOAD_BUDGET_BYTES;
        if !one_each || gap.as_ms() != 0 || !fits {
            return None;
        }
        let mut payload = BytesMut::with_capacity(first.payload.len() + second.payload.len() + LENGTH_BYTES);
        if a.len() == b.len() {
            payload.put_u8(toc | TWO_OF_EQUAL_SIZE);
        } else {
            payload.put_u8(toc | TWO_OF_ANY_SIZE);
            // RFC 6716 §3.2.1: one byte up to 251, else two.
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

/// How long one frame lasts (RFC 6716 §3.1, table 2).
fn duration(toc: u8) -> MediaTime {
    let config = usize::from(toc >> 3);
    let ticks = match config {
        0..=11 => [480, 960, 1_920, 2_880][config % 4],
        12..=15 => [480, 960][config % 2],
        _ => [120, 240, 480, 960][config % 4],
    };
    MediaTime::from_ticks(ticks, OpusPacketiser::CLOCK_HZ)
}

/// Which bits say how many frames there are.
const FRAMES_MASK: u8 = 3;
const TWO_OF_EQUAL_SIZE: u8 = 1;
const TWO_OF_ANY_SIZE: u8 = 2;
/// What a frame's length takes at most.
const LENGTH_BYTES: usize = 2;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::opus;
    use crate::{Codec, Track};

    /// A stereo packet of 20 ms, CELT.
    const TOC: u8 = 0xfc;

    fn frame(ms: i64, toc: u8, len: usize) -> Frame {
        let track = Track { codec: Codec::Opus, config: Bytes::new(), codec_string: None, video: None, audio: None };
        let time = MediaTime::from_ms(ms);
        let payload = std::iter::once(toc).chain(std::iter::repeat_n(ms as u8, len)).collect();
        Frame { track: Arc::new(track), dts: time, pts: time, key: true, payload }
    }

    fn joined(a: usize, b: usize) -> Option<Vec<u8>> {
        let frame = OpusPacketiser.join(&frame(1, TOC, a), &frame(21, TOC, b))?;
        assert_eq!(frame.pts.as_ms(), 1);
        Some(frame.payload.to_vec())
    }

    #[test]
    fn frames_of_equal_size_need_no_length_and_others_have_the_firsts() {
        assert_eq!(joined(2, 2).unwrap(), [TOC | 1, 1, 1, 21, 21]);
        assert_eq!(joined(2, 1).unwrap(), [TOC | 2, 2, 1, 1, 21]);
        assert_eq!(joined(251, 1).unwrap()[..2], [TOC | 2, 251]);
        assert_eq!(joined(252, 1).unwrap()[..3], [TOC | 2, 252, 0]);
        assert_eq!(joined(255, 1).unwrap()[..3], [TOC | 2, 255, 0]);
        assert_eq!(joined(259, 1).unwrap()[..3], [TOC | 2, 255, 1]);
        assert_eq!(joined(0, 1).unwrap(), [TOC | 2, 0, 21]);
    }

    #[test]
    fn what_does_not_belong_together_is_not_joined() {
        let first = frame(0, TOC, 5);
        for second in [
            frame(19, TOC, 5),
            frame(40, TOC, 5),
            frame(20, TOC | 1, 6),
            frame(20, 0x00, 5),
            Frame { payload: Bytes::new(), ..frame(20, TOC, 0) },
        ] {
            assert!(OpusPacketiser.join(&first, &second).is_none(), "{second:?}");
        }
        assert!(joined(700, 700).is_none());
    }

    /// True if they were joined; then nothing is lost, and the packet lasts as long as both.
    fn joins(first: &Frame, second: &Frame) -> bool {
        let Some(joined) = OpusPacketiser.join(first, second) else { return false };
        let bodies = [&first.payload[1..], &second.payload[1..]].concat();
        assert!(joined.payload.ends_with(&bodies) && joined.payload.len() <= super::super::PAYLOAD_BUDGET_BYTES);
        let samples = |frame: &Frame| opus::packet_samples(&frame.payload);
        assert_eq!(samples(&joined), samples(first).map(|samples| 2 * samples));
        true
    }

    #[test]
    fn whatever_the_first_byte_says_it_is_joined_only_with_its_like() {
        for toc in 0..=u8::MAX {
            let first = frame(1, toc, 5);
            let second = Frame { pts: first.pts + duration(toc), ..frame(1, toc, 7) };
            assert_eq!(joins(&first, &second), toc & FRAMES_MASK == 0, "{toc:#x}");
        }
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_of_a_packet_panics() {
        let (first, second) = (frame(1, TOC, 300), frame(21, TOC, 251));
        for whole in [&first, &second] {
            let changed = |payload| {
                let changed = Frame { payload, ..whole.clone() };
                if whole.pts == first.pts { joins(&changed, &second) } else { joins(&first, &changed) }
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
