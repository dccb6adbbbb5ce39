//! Every message round-trips, and no input makes the reader panic.

use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};

use super::{EndReason, MediaFrame, Message, MessageError, MessageReader, Owner, Refusal};
use crate::segment::Segment;
use crate::targets::Targets;
use crate::{AudioTrack, Codec, MAX_CONFIG_BYTES, MediaKind, MediaTime, Track, VideoTrack};

fn targets(part_ms: i64, segment_secs: Option<u32>) -> Targets {
    let segment_secs = segment_secs.and_then(NonZeroU32::new);
    Targets { part: MediaTime::from_ms(part_ms), segment_secs, has_parts: true, independent: true }
}

fn one_of_each() -> Vec<Message> {
    let video = Track {
        codec: Codec::H264,
        config: Bytes::from_static(&[1, 66, 0, 31, 255]),
        codec_string: Some("avc1.42001f".to_owned()),
        video: Some(VideoTrack { width: 1_280, height: 720, reorder_frames: Some(0) }),
        audio: None,
    };
    let audio = Track {
        codec: Codec::Aac,
        config: Bytes::from_static(&[0x11, 0x90]),
        codec_string: None,
        video: None,
        audio: Some(AudioTrack { sample_rate_hz: 48_000, channels: 2, samples_per_frame: 1_024 }),
    };
    vec![
        Message::Subscribe { app: "live".to_owned(), stream_id: "demo".to_owned(), history: true, max_hops: 2 },
        Message::Live,
        Message::Accepted { generation: 1_764_000_000_123, protocol: "rtmp".to_owned(), hops: 1 },
        Message::Refused(Refusal::NotFound),
        Message::Refused(Refusal::Full),
        Message::Refused(Refusal::Draining),
        Message::Track { track: video, b_frames: true },
        Message::Track { track: audio, b_frames: false },
        Message::Frame(MediaFrame {
            kind: MediaKind::Video,
            key: true,
            dts: MediaTime::from_ms(-5),
            pts: MediaTime::from_ms(40),
            segment: Segment { number: 7, start: MediaTime::from_ms(-5) },
            after_gap: true,
            payload: Bytes::from_static(b"picture"), // part of the golden checksum below
        }),
        Message::Notice { code: "b_frames".to_owned(), message: "Turn them off.".to_owned() },
        Message::KeyFrame,
        Message::Ping(1),
        Message::Pong(u64::MAX),
        Message::End(EndReason::StreamEnded),
        Message::End(EndReason::Draining),
        Message::End(EndReason::Idle),
        Message::End(EndReason::Moved),
        Message::Heartbeat { owner: owner(), silent_ms: 500 },
        Message::AskWitness { app: "live".to_owned(), stream_id: "demo".to_owned(), owner: owner() },
        Message::Testimony(Some(u32::MAX)),
        Message::Testimony(None),
        Message::Moved { app: "live".to_owned(), stream_id: "demo".to_owned() },
        Message::Targets(targets(220, Some(10))),
        Message::Targets(Targets { has_parts: false, independent: false, ..targets(60_000, None) }),
    ]
}

/// Number of messages of [`one_of_each`] that every node with version 1 knows; the others belong to
/// features.
const WITHOUT_FEATURES: usize = 17;

fn owner() -> Owner {
    Owner { node: "i-0123456789abcdef0".to_owned(), boot_epoch: 1_764_000_000_123 }
}

fn read_all(bytes: &[u8]) -> Result<Vec<Message>, MessageError> {
    let mut messages = MessageReader::new(Bytes::copy_from_slice(bytes));
    let mut all = Vec::new();
    while let Some(message) = messages.next_message()? {
        all.push(message);
    }
    Ok(all)
}

fn written() -> BytesMut {
    let mut out = BytesMut::new();
    one_of_each().iter().for_each(|m| m.write(&mut out));
    out
}

#[test]
fn every_message_round_trips() {
    assert_eq!(read_all(&written()), Ok(one_of_each()));
}

#[test]
fn bytes_of_version_1_equal_the_golden_bytes() {
    let mut out = BytesMut::new();
    Message::Subscribe { app: "live".to_owned(), stream_id: "a".to_owned(), history: false, max_hops: 1 }
        .write(&mut out);
    Message::Ping(258).write(&mut out);
    assert_eq!(&out[..], b"\x01\0\0\0\x0b\0\x04live\0\x01a\0\x01\x03\0\0\0\x08\0\0\0\0\0\0\x01\x02");
    let mut out = BytesMut::new();
    one_of_each().iter().take(WITHOUT_FEATURES).for_each(|m| m.write(&mut out));
    assert_eq!(crc32fast::hash(&out), 1_810_847_186, "checksum of one message of each kind");
    let mut out = BytesMut::new();
    let owner = Owner { node: "a".to_owned(), boot_epoch: 258 };
    Message::Heartbeat { owner, silent_ms: 3 }.write(&mut out);
    Message::Testimony(Some(4)).write(&mut out);
    assert_eq!(&out[..], b"\x17\0\0\0\x0f\0\x01a\0\0\0\0\0\0\x01\x02\0\0\0\x03\x18\0\0\0\x05\x01\0\0\0\x04");
}

#[test]
fn no_prefix_and_no_flipped_bit_panics() {
    let bytes = written();
    for len in 0..bytes.len() {
        let _ = read_all(&bytes[..len]);
    }
    for byte in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.to_vec();
            changed[byte] ^= 1 << bit;
            let _ = read_all(&changed);
        }
    }
}

#[test]
fn message_of_unknown_kind_is_skipped() {
    let mut out = BytesMut::new();
    out.extend_from_slice(&[200, 0, 0, 0, 2, 9, 9]);
    Message::KeyFrame.write(&mut out);
    assert_eq!(read_all(&out), Ok(vec![Message::KeyFrame]));
}

#[test]
fn constants_out_of_range_are_limited() {
    let bytes = [22, 0, 0, 0, 9, 0, 0, 0, 0, 255, 255, 255, 255, 3];
    assert_eq!(read_all(&bytes), Ok(vec![Message::Targets(targets(1, Some(60)))]));
}

#[test]
fn longest_names_and_configuration_round_trip() {
    let (app, stream_id) = ("a".repeat(64), "b".repeat(128));
    let mut out = BytesMut::new();
    let messages = one_of_each().into_iter().map(|message| match message {
        Message::Subscribe { history, max_hops, .. } => {
            Message::Subscribe { app: app.clone(), stream_id: stream_id.clone(), history, max_hops }
        }
        Message::Track { track, b_frames } => {
            Message::Track { track: Track { config: vec![7; MAX_CONFIG_BYTES].into(), ..track }, b_frames }
        }
        other => other,
    });
    let messages: Vec<Message> = messages.collect();
    messages.iter().for_each(|message| message.write(&mut out));
    assert_eq!(read_all(&out).unwrap(), messages);
}

#[test]
fn fields_beyond_their_limits_are_rejected() {
    let mut name = vec![1, 0, 0, 0, 134, 0, 129];
    name.extend_from_slice(&[b'a'; 132]);
    assert_eq!(read_all(&name), Err(MessageError::TooLong { len: 129, limit: 128 }));
    let mut node = vec![23, 0, 0, 1, 15, 1, 1];
    node.extend_from_slice(&[b'a'; 269]);
    assert_eq!(read_all(&node), Err(MessageError::TooLong { len: 257, limit: 256 }));
    assert_eq!(read_all(&[2, 0, 0, 0, 1, 0]), Err(MessageError::TrailingBytes(1)));
    assert_eq!(read_all(&[2, 255, 255, 255, 255]), Err(MessageError::Truncated));
    assert_eq!(read_all(&[17, 0, 0, 0, 1, 77]), Err(MessageError::Unknown { field: "refusal", code: 77 }));
}
