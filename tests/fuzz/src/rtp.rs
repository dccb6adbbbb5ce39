//! Video frames and audio packets as RTP payloads: no payload is empty or too long, and
//! depacketizing them yields the same NAL units.

use std::sync::Arc;

use bytes::Bytes;
use headwater_wire::codec::h264::{DecoderConfig, nal_units};
use headwater_wire::rtp::{H264Packetizer, OpusPacketizer, PAYLOAD_BUDGET_BYTES, PacketizedFrame, Ring};
use headwater_wire::{Codec, Frame, MediaTime, Track};

fn frame(codec: Codec, config: Bytes, key: bool, payload: Bytes) -> Frame {
    let track = Arc::new(Track { codec, config, codec_string: None, video: None, audio: None });
    let at = MediaTime::from_ms(40);
    Frame { track, dts: at, pts: at, key, payload }
}

fn payloads(frame: &PacketizedFrame) -> Vec<&[u8]> {
    let all: Vec<_> = (0..frame.len()).map(|i| frame.payload(i).unwrap()).collect();
    assert!(all.iter().all(|p| !p.is_empty() && p.len() <= PAYLOAD_BUDGET_BYTES));
    assert_eq!(all.iter().map(|p| p.len()).sum::<usize>(), frame.payload_bytes());
    assert!(frame.payload(frame.len()).is_none());
    let without_padding = |(i, payload)| {
        let payload: &[u8] = payload;
        let padding = frame.padding_bytes(i);
        // The last padding byte is the padding length (RFC 3550 §5.1), and some payload remains.
        assert!(padding == 0 || (payload.last() == Some(&padding) && payload.len() > usize::from(padding)));
        &payload[..payload.len() - usize::from(padding)]
    };
    (0..).zip(all).map(without_padding).collect()
}

/// Reassembles the NAL units as a receiver does (RFC 6184 §5.6 to §5.8).
fn depacketize(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut nals: Vec<Vec<u8>> = Vec::new();
    for payload in payloads {
        match payload[0] & 31 {
            24 => {
                let mut rest = &payload[1..];
                while let Some((len, after)) = rest.split_first_chunk() {
                    let (nal, after) = after.split_at(usize::from(u16::from_be_bytes(*len)));
                    nals.push(nal.to_vec());
                    rest = after;
                }
            }
            28 if payload[1] & 0x80 != 0 => {
                nals.push([&[payload[0] & 0xe0 | payload[1] & 31][..], &payload[2..]].concat());
            }
            28 => nals.last_mut().unwrap().extend_from_slice(&payload[2..]),
            _ => nals.push(payload.to_vec()),
        }
    }
    nals
}

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let Some((&[flags, config_bytes], rest)) = data.split_first_chunk() else { return };
    let (config, payload) = rest.split_at(usize::from(config_bytes).min(rest.len()));
    // Fuzzers rarely produce long NAL units: a flag inserts one of up to 9 KB at the front.
    let long = (flags & 2 != 0).then(|| {
        let unit = [&[0x65][..], &vec![flags; 32 * usize::from(flags) + 1_000]].concat();
        [&(unit.len() as u32).to_be_bytes()[..], &unit].concat()
    });
    let payload = Bytes::from([long.as_deref().unwrap_or_default(), payload].concat());
    let config = Bytes::copy_from_slice(config);
    let key = flags & 1 != 0;
    let video = frame(Codec::H264, config.clone(), key, payload.clone());
    let units: Vec<Bytes> = nal_units(&payload).collect();
    let mut packetizer = H264Packetizer::default();
    let mut ring = Ring::video();
    let packets = packetizer.packetize(&video);
    if let Some(packets) = &packets {
        let first = ring.push(packets.clone()).first_packet;
        assert!(ring.find(first).is_some() && ring.find(first + u64::from(packets.len())).is_none());
        let _ = payloads(packets);
    }
    // NAL unit types 0 and 24 to 31 have other meanings in a payload and cannot be compared.
    let parameters = match DecoderConfig::parse(&config) {
        Ok(config) if key && !units.iter().any(|u| u[0] & 31 == 7) => {
            config.sps.into_iter().chain(config.pps).filter(|nal| !nal.is_empty()).collect()
        }
        _ => Vec::new(),
    };
    let kept = units.into_iter().filter(|u| !matches!(u[0] & 31, 9..=12));
    let expected: Vec<Vec<u8>> = parameters.into_iter().chain(kept).map(|nal: Bytes| nal.to_vec()).collect();
    if expected.iter().all(|nal| (1..24).contains(&(nal[0] & 31))) {
        let sent = packets.as_ref().map(|packets| depacketize(&payloads(packets))).unwrap_or_default();
        assert_eq!(sent, expected);
    }

    let audio = frame(Codec::Opus, Bytes::new(), true, payload.clone());
    match OpusPacketizer.packetize(&audio) {
        Some(packet) => assert_eq!(payloads(&packet), [&payload[..]]),
        None => assert!(payload.is_empty() || payload.len() > PAYLOAD_BUDGET_BYTES),
    }
}
