//! No parser here panics on any prefix of golden data, nor on any flipped byte of it.

use bytes::Bytes;

use super::*;

fn all(bytes: &Bytes) {
    let _ = h264::track(bytes.clone()).map(|t| h264::DecoderConfig::parse(&t.config).map(|c| c.encode()));
    let _ = h265::track(bytes.clone());
    let _ = av1::track(bytes.clone());
    let _ = aac::track(bytes.clone());
    let _ = aac::Adts::parse(bytes);
    let _ = opus::track(bytes.clone());
    let _ = opus::packet_samples(bytes);
    let _ = (h264::is_idr(bytes), h265::is_irap(bytes), h264::widen_lengths(bytes, 1).len());
    let _ = annexb::to_length_prefixed(bytes);
    let _ = annexb::from_length_prefixed(bytes);
}

#[test]
fn no_prefix_and_no_flipped_byte_of_a_header_panics() {
    let opus_head = opus::head(2, 312);
    let golden: [&[u8]; 5] =
        [h264::tests::AVCC, h265::tests::HVCC, av1::tests::AV1C, &[0x2b, 0x92, 0x08, 0x00], &opus_head];
    for bytes in golden {
        for end in 0..=bytes.len() {
            all(&Bytes::copy_from_slice(&bytes[..end]));
        }
        for at in 0..bytes.len() {
            for bit in [1u8, 2, 4, 8, 16, 32, 64, 128, 255] {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= bit;
                all(&flipped.into());
            }
        }
    }
}
