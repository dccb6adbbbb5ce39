//! Tests of the H.264 packetizer: every NAL unit round-trips, in packets of equal size.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::{Codec, MediaTime, Track, VideoTrack};

fn sps() -> Bytes {
    Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f, 1, 2, 3])
}

fn pps() -> Bytes {
    Bytes::from_static(&[0x68, 0xce, 0x3c, 0x80])
}

fn nal(kind: u8, len: usize) -> Bytes {
    let mut out = vec![0x60 | kind];
    out.extend((1..len).map(|i| (i * 7 + usize::from(kind)) as u8));
    out.into()
}

fn frame(nals: &[Bytes], key: bool) -> Frame {
    let config = DecoderConfig::from_parameter_sets(sps(), pps()).unwrap().encode();
    let track = Arc::new(Track {
        codec: Codec::H264,
        config,
        codec_string: None,
        video: Some(VideoTrack::default()),
        audio: None,
    });
    let mut payload = BytesMut::new();
    for nal in nals {
        payload.put_u32(nal.len() as u32);
        payload.extend_from_slice(nal);
    }
    let t = MediaTime::from_ms(1_000);
    Frame { track, dts: t, pts: t, key, payload: payload.freeze() }
}

/// Reassembles the NAL units as a receiver does (RFC 6184 §5.6, §5.7.1, §5.8).
fn depacketise(frame: &PacketizedFrame) -> Vec<Vec<u8>> {
    let mut nals: Vec<Vec<u8>> = Vec::new();
    for i in 0..frame.len() {
        let payload = frame.payload(i).unwrap();
        assert!(payload.len() <= PAYLOAD_BUDGET_BYTES);
        let padding = frame.padding_bytes(i);
        assert!(padding == 0 || payload.last() == Some(&padding));
        let payload = &payload[..payload.len() - usize::from(padding)];
        match payload[0] & 31 {
            STAP_A => {
                let mut rest = &payload[1..];
                while let Some((len, tail)) = rest.split_first_chunk::<2>() {
                    let (nal, tail) = tail.split_at(usize::from(u16::from_be_bytes(*len)));
                    nals.push(nal.to_vec());
                    rest = tail;
                }
                assert!(rest.is_empty());
            }
            FU_A => {
                if payload[1] & 0x80 != 0 {
                    nals.push(vec![(payload[0] & 0xe0) | (payload[1] & 31)]);
                }
                nals.last_mut().unwrap().extend_from_slice(&payload[2..]);
            }
            _ => nals.push(payload.to_vec()),
        }
    }
    nals
}

#[test]
fn every_nal_unit_round_trips() {
    for len in [2, 3, 100, 1_169, 1_170, 1_171, 2_336, 2_337, 2_340, 2_341, 11_000, 130_000] {
        let input = [nal(6, 20), nal(1, len)];
        let out = H264Packetizer::default().packetize(&frame(&input, false)).unwrap();
        let expect: Vec<Vec<u8>> = input.iter().map(|n| n.to_vec()).collect();
        assert_eq!(depacketise(&out), expect, "slice of {len} bytes");
        assert!(out.has_marker(out.len() - 1) && !out.has_marker(out.len().saturating_sub(2)) || out.len() == 1);
    }
}

fn sizes(nals: &[Bytes]) -> Vec<usize> {
    let out = H264Packetizer::default().packetize(&frame(nals, false)).unwrap();
    assert_eq!(depacketise(&out).len(), nals.len());
    (0..out.len()).map(|i| out.payload(i).unwrap().len()).collect()
}

#[test]
fn fragments_of_a_frame_have_equal_size() {
    for len in (1_171..40_000).step_by(97) {
        let sizes = sizes(&[nal(1, len)]);
        assert!(sizes.iter().all(|s| *s == sizes[0]), "{sizes:?}");
        let waste = sizes.iter().sum::<usize>() - 2 * sizes.len() - (len - 1);
        assert!(waste < sizes.len(), "{waste} bytes of padding in {} packets", sizes.len());
    }
}

#[test]
fn only_fragments_of_slices_of_similar_length_are_padded_to_equal_size() {
    let similar = sizes(&[nal(1, 3_300), nal(1, 3_360), nal(1, 3_250)]);
    assert!(similar.len() == 9 && similar.iter().all(|s| *s == similar[0]), "{similar:?}");
    let different = sizes(&[nal(1, 2_300), nal(1, 2_400)]);
    assert!(different[0] == different[1] && different[1] > different[2] + MAX_PADDING_BYTES, "{different:?}");
}

#[test]
fn padding_beyond_255_bytes_is_omitted() {
    // 300 fragments; the last one is 299 bytes shorter than the others.
    let len = 1 + 300 * 1_168 - 299;
    let sizes = sizes(&[nal(1, len)]);
    assert!(sizes.len() == 300 && sizes[299] == sizes[0] - 299, "{} {}", sizes[0], sizes[sizes.len() - 1]);
}

#[test]
fn idr_picture_is_preceded_by_its_parameter_sets_in_one_packet() {
    let idr = nal(5, 5_000);
    let out = H264Packetizer::default().packetize(&frame(std::slice::from_ref(&idr), true)).unwrap();
    assert_eq!(depacketise(&out), [sps().to_vec(), pps().to_vec(), idr.to_vec()]);
    assert_eq!(out.payload(0).unwrap()[0], 0x60 | STAP_A);
    let in_band = [sps(), pps(), idr.clone()];
    let out = H264Packetizer::default().packetize(&frame(&in_band, true)).unwrap();
    assert_eq!(depacketise(&out).len(), 3);
}

#[test]
fn delimiters_and_filler_are_removed_and_an_empty_frame_yields_nothing() {
    let out = H264Packetizer::default().packetize(&frame(&[nal(9, 2), nal(1, 10), nal(12, 50)], false)).unwrap();
    assert_eq!(depacketise(&out), [nal(1, 10).to_vec()]);
    assert!(H264Packetizer::default().packetize(&frame(&[nal(9, 2)], false)).is_none());
    assert!(H264Packetizer::default().packetize(&frame(&[], true)).is_some_and(|p| p.len() == 1));
}

#[test]
fn no_prefix_and_no_flipped_bit_of_a_frame_panics() {
    let whole = frame(&[nal(6, 20), nal(5, 3_000)], true);
    for end in 0..whole.payload.len() {
        let cut = Frame { payload: whole.payload.slice(..end), ..whole.clone() };
        let _ = H264Packetizer::default().packetize(&cut);
    }
    for at in 0..whole.payload.len() {
        for bit in 0..8 {
            let mut flipped = whole.payload.to_vec();
            flipped[at] ^= 1 << bit;
            let _ = H264Packetizer::default().packetize(&Frame { payload: flipped.into(), ..whole.clone() });
        }
    }
}
