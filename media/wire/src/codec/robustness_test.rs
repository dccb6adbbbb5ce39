//! No parser in this module panics on any prefix or any flipped bit of golden data.

use bytes::Bytes;

use super::*;

fn run_every_parser(bytes: &Bytes) {
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
    let adts = [0xff, 0xf1, 0x4c, 0x80, 0x01, 0x7f, 0xfc, 0x21, 0x10, 0x04, 0x60];
    let annexb = [0, 0, 0, 1, 0x67, 66, 0, 31, 0, 0, 1, 0x68, 0xce, 0, 0, 3, 1, 0, 0, 1, 0x65, 0x88, 0x84];
    let prefixed = [0, 0, 0, 4, 0x67, 66, 0, 31, 0, 0, 0, 3, 0x65, 0x88, 0x84];
    let golden: [&[u8]; 8] = [
        h264::tests::AVCC,
        h265::tests::HVCC,
        av1::tests::AV1C,
        &[0x2b, 0x92, 0x08, 0x00],
        &opus_head,
        &adts,
        &annexb,
        &prefixed,
    ];
    for bytes in golden {
        for end in 0..=bytes.len() {
            run_every_parser(&Bytes::copy_from_slice(&bytes[..end]));
        }
        for at in 0..bytes.len() {
            for bit in [1u8, 2, 4, 8, 16, 32, 64, 128, 255] {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= bit;
                run_every_parser(&flipped.into());
            }
        }
    }
}
