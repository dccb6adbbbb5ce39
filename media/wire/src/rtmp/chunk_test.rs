//! Tests of the chunk reader with hand-built chunks.

use bytes::BytesMut;

use super::*;
use crate::rtmp::message;

fn type0(csid: u8, timestamp: u32, len: usize, kind: u8) -> Vec<u8> {
    let mut out = vec![csid];
    out.extend_from_slice(&timestamp.min(0xff_ffff).to_be_bytes()[1..]);
    out.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
    out.push(kind);
    out.extend_from_slice(&1u32.to_le_bytes());
    if timestamp >= 0xff_ffff {
        out.extend_from_slice(&timestamp.to_be_bytes());
    }
    out
}

fn set_chunk_size(size: u32) -> Vec<u8> {
    let mut out = type0(2, 0, 4, kind::SET_CHUNK_SIZE);
    out.extend_from_slice(&size.to_be_bytes());
    out
}

fn media_reader() -> ChunkReader {
    let mut reader = ChunkReader::default();
    reader.expect_media();
    reader
}

/// Returns all messages in `bytes`, sent by an accepted publisher and received in reads of `piece`
/// bytes.
fn read(bytes: &[u8], piece: usize) -> Result<Vec<Message>, ChunkError> {
    read_with(&mut media_reader(), bytes, piece)
}

fn read_with(reader: &mut ChunkReader, bytes: &[u8], piece: usize) -> Result<Vec<Message>, ChunkError> {
    let mut out = Vec::new();
    for mut input in bytes.chunks(piece) {
        while let Some(message) = reader.next(&mut input)? {
            out.push(message);
        }
    }
    Ok(out)
}

fn summaries(messages: &[Message]) -> Vec<(u8, u32, usize)> {
    messages.iter().map(|m| (m.kind, m.timestamp_ms, m.payload.len())).collect()
}

/// Returns chunks of every type, interleaved, with and without extended timestamps.
fn golden() -> Vec<u8> {
    let mut out = type0(6, 1_000, 300, kind::VIDEO);
    out.extend([1; 128]);
    out.extend(type0(4, 990, 130, kind::AUDIO)); // interleaved with the video message
    out.extend([2; 128]);
    out.push(0xc6);
    out.extend([1; 128]);
    out.push(0xc4);
    out.extend([2; 2]);
    out.push(0xc6);
    out.extend([1; 44]);
    out.extend([0x44, 0, 0, 23, 0, 0, 5, kind::AUDIO, 3, 3, 3, 3, 3]); // type 1
    out.extend([0x84, 0, 0, 24, 4, 4, 4, 4, 4]); // type 2
    out.extend([0xc4, 5, 5, 5, 5, 5]); // type 3 begins a message: same delta
    out.extend(set_chunk_size(4_096));
    out.extend(type0(6, 0x0100_0000, 5_000, kind::VIDEO));
    out.extend([6; 4_096]);
    out.push(0xc6);
    out.extend(0x0100_0000_u32.to_be_bytes());
    out.extend([6; 904]);
    out.extend([0x00, 200, 0, 0, 1, 0, 0, 1, kind::AUDIO, 1, 0, 0, 0, 7]); // two-byte chunk stream id
    out
}

const GOLDEN: &[(u8, u32, usize)] = &[
    (kind::AUDIO, 990, 130),
    (kind::VIDEO, 1_000, 300),
    (kind::AUDIO, 1_013, 5),
    (kind::AUDIO, 1_037, 5),
    (kind::AUDIO, 1_061, 5),
    (kind::VIDEO, 0x0100_0000, 5_000),
    (kind::AUDIO, 1, 1),
];

#[test]
fn interleaved_messages_are_reassembled_for_every_read_size() {
    for piece in [1, 2, 3, 7, 18, 129, 4_096, 100_000] {
        let messages = read(&golden(), piece).unwrap();
        assert_eq!(summaries(&messages), GOLDEN, "pieces of {piece}");
        assert!(messages[1].payload.iter().all(|&b| b == 1), "audio bytes in the video message");
        assert!(messages[5].payload.iter().all(|&b| b == 6));
    }
}

#[test]
fn extended_timestamp_may_be_omitted_in_type_3_chunks() {
    for piece in [1, 3, 1_000] {
        let mut bytes = type0(6, 0x0100_0000, 300, kind::VIDEO);
        bytes.extend([1; 128]);
        bytes.push(0xc6);
        bytes.extend([1; 128]); // begins with 01, like the extended timestamp
        bytes.push(0xc6);
        bytes.extend([1; 44]);
        let messages = read(&bytes, piece).unwrap();
        assert_eq!(summaries(&messages), [(kind::VIDEO, 0x0100_0000, 300)]);
        assert!(messages[0].payload.iter().all(|&b| b == 1));
    }
}

#[test]
fn every_legal_chunk_size_is_read_without_reserving_it() {
    for size in [1, 2, 64, 127, 1 << 20, 134_217_728, 0x7fff_ffff] {
        let mut bytes = set_chunk_size(size);
        let body = vec![7; 700];
        for (n, chunk) in body.chunks(size as usize).enumerate() {
            bytes.extend(if n == 0 { type0(6, 40, 700, kind::VIDEO) } else { vec![0xc6] });
            bytes.extend(chunk);
        }
        for piece in [1, 5, 10_000] {
            let mut reader = media_reader();
            assert_eq!(read_with(&mut reader, &bytes, piece).unwrap()[0].payload[..], body, "{size}");
            assert!(reader.buffered_bytes() <= MAX_COMMAND_PHASE_BYTES);
        }
    }
}

#[test]
fn held_media_stays_in_the_input_and_commands_before_it_do_not() {
    let ping = [type0(2, 0, 6, kind::USER_CONTROL), vec![0; 6]].concat();
    let media = golden();
    for piece in [1, 5, 13, 10_000] {
        let mut reader = media_reader();
        reader.hold_media(true);
        let bytes = [&ping[..], &media[..]].concat();
        let (mut held, mut messages) = (Vec::new(), Vec::new());
        for mut input in bytes.chunks(piece) {
            if held.is_empty() {
                while let Some(message) = reader.next(&mut input).unwrap() {
                    messages.push(message.kind);
                }
            }
            held.extend_from_slice(input);
        }
        assert_eq!(messages, [kind::USER_CONTROL]);
        assert_eq!(reader.next(&mut &held[..]), Ok(None), "still held");
        reader.hold_media(false);
        assert_eq!(summaries(&read_with(&mut reader, &held, piece).unwrap()), GOLDEN, "pieces of {piece}");
    }
}

#[test]
fn timestamps_wrap_at_2_to_the_32() {
    let mut bytes = type0(4, 0xffff_fff0, 1, kind::AUDIO);
    bytes.push(9);
    bytes.extend([0x84, 0, 0, 0x20, 9]);
    assert_eq!(summaries(&read(&bytes, 5).unwrap()), [(kind::AUDIO, 0xffff_fff0, 1), (kind::AUDIO, 0x10, 1)]);
}

#[test]
fn aborted_message_is_discarded() {
    let mut bytes = type0(6, 0, 200, kind::VIDEO);
    bytes.extend([1; 128]);
    bytes.extend(type0(2, 0, 4, kind::ABORT));
    bytes.extend(6u32.to_be_bytes());
    bytes.extend(type0(6, 7, 1, kind::VIDEO));
    bytes.push(2);
    assert_eq!(summaries(&read(&bytes, 50).unwrap()), [(kind::VIDEO, 7, 1)]);
}

#[test]
fn limits_are_exact() {
    assert!(read(&type0(6, 0, MAX_MESSAGE_BYTES, kind::VIDEO), 99).is_ok());
    let rest = MAX_PARTIAL_BYTES - MAX_MESSAGE_BYTES;
    assert!(read(&first_chunks(&[MAX_MESSAGE_BYTES, rest]), 99).is_ok());
    let too_much = ChunkError::PartialTooLong { len: MAX_PARTIAL_BYTES + 1, limit: MAX_PARTIAL_BYTES };
    assert_eq!(read(&first_chunks(&[MAX_MESSAGE_BYTES, rest + 1]), 99), Err(too_much));
    for (size, valid) in [(0, false), (1, true), (0x7fff_ffff, true), (0x8000_0000, false), (u32::MAX, false)] {
        assert_eq!(read(&set_chunk_size(size), 99).is_ok(), valid, "{size}");
    }
    let unfinished = |n: u8| -> Vec<u8> {
        (0..n).flat_map(|i| [type0(3 + i, 0, 200, kind::AUDIO), vec![0; 128]].concat()).collect()
    };
    assert!(read(&unfinished(8), 99).is_ok());
    assert_eq!(read(&unfinished(9), 99), Err(ChunkError::TooManyPartialMessages));
    let streams = |n: u32| -> Vec<u8> {
        (0..n).flat_map(|i| [vec![1, i as u8, 1], type0(0, 0, 0, kind::AUDIO)[1..].to_vec()].concat()).collect()
    };
    assert!(read(&streams(64), 99).is_ok());
    assert_eq!(read(&streams(65), 99), Err(ChunkError::TooManyChunkStreams));
    assert_eq!(read(&[0xc5], 1), Err(ChunkError::NoHeader { csid: 5 }));
    assert_eq!(read(&[0x45, 0, 0, 0, 0, 0, 0, 8], 9), Err(ChunkError::NoHeader { csid: 5 }));
}

fn too_long(len: usize, limit: usize) -> ChunkError {
    ChunkError::MessageTooLong { len, limit }
}

/// Returns the first chunk of a message of each length, on separate chunk streams from 3 on.
fn first_chunks(lengths: &[usize]) -> Vec<u8> {
    (3..).zip(lengths).flat_map(|(csid, &len)| [type0(csid, 0, len, kind::VIDEO), vec![0; 128]].concat()).collect()
}

#[test]
fn unaccepted_peer_may_begin_only_messages_within_the_command_limit() {
    let limit = MAX_COMMAND_PHASE_BYTES;
    let check = |bytes: &[u8], expect: Result<(), ChunkError>| {
        assert_eq!(read_with(&mut ChunkReader::default(), bytes, 99).map(drop), expect);
    };
    check(&first_chunks(&[limit]), Ok(()));
    check(&first_chunks(&[limit + 1]), Err(too_long(limit + 1, limit)));
    check(&first_chunks(&[limit / 2, limit / 2]), Ok(()));
    let one_more = limit / 2 + 1;
    check(&first_chunks(&[limit / 2, one_more]), Err(ChunkError::PartialTooLong { len: limit + 1, limit }));
    // A message that replaces an unfinished one counts alone; a complete one no longer counts.
    check(&[first_chunks(&[limit]), first_chunks(&[limit])].concat(), Ok(()));
    let abort = [type0(2, 0, 4, kind::ABORT), 3_u32.to_be_bytes().to_vec()].concat();
    check(&[first_chunks(&[limit - 4]), abort, type0(4, 0, limit, kind::VIDEO)].concat(), Ok(()));
    let whole = [type0(4, 0, 128, kind::COMMAND_AMF0), vec![0; 128]].concat();
    check(&[whole.repeat(limit / 128 + 1), first_chunks(&[limit])].concat(), Ok(()));
}

#[test]
fn expect_commands_discards_unfinished_messages_above_the_command_limit() {
    let mut reader = media_reader();
    read_with(&mut reader, &first_chunks(&[MAX_MESSAGE_BYTES, 200]), 99).unwrap();
    reader.expect_commands();
    assert!(reader.buffered_bytes() <= MAX_COMMAND_PHASE_BYTES, "{}", reader.buffered_bytes());
    // The short message continues; the long one does not.
    let rest = [vec![0xc4], vec![0; 72]].concat();
    assert_eq!(summaries(&read_with(&mut reader, &rest, 99).unwrap()), [(kind::VIDEO, 0, 200)]);
    assert_eq!(read_with(&mut reader, &[0xc3, 0], 99), Err(too_long(MAX_MESSAGE_BYTES, MAX_COMMAND_PHASE_BYTES)));
}

#[test]
fn only_payload_bytes_of_audio_and_video_count_as_media() {
    let mut reader = media_reader();
    let mut is_media = |bytes: &[u8]| {
        read_with(&mut reader, bytes, 99).unwrap();
        reader.take_media_received()
    };
    assert!(!is_media(&[type0(2, 0, 6, kind::USER_CONTROL), vec![0; 6]].concat()), "a ping");
    assert!(!is_media(&type0(4, 0, 0, kind::AUDIO)), "an empty audio message");
    assert!(!is_media(&type0(6, 0, 300, kind::VIDEO)), "a header");
    assert!(is_media(&[1]), "a part of a video message");
    assert!(!is_media(&[]), "reported once");
    assert!(is_media(&[1; 127]));
    assert!(!is_media(&[type0(2, 0, 6, kind::USER_CONTROL), vec![0; 6]].concat()), "a ping within a video message");
    assert!(is_media(&[type0(4, 0, 1, kind::AUDIO), vec![0]].concat()));
}

#[test]
fn declared_length_reserves_no_memory_before_bytes_arrive() {
    let mut reader = media_reader();
    let bytes: Vec<u8> = (0..8).flat_map(|i| type0(3 + i, 0, MAX_PARTIAL_BYTES / 8, kind::VIDEO)).collect();
    // Each header would be followed by payload; here the next header follows instead.
    for head in bytes.chunks(12) {
        reader.payload = None;
        reader.next(&mut &head[..]).unwrap();
    }
    assert!(reader.buffered_bytes() <= 8 * INITIAL_RESERVE_BYTES, "{}", reader.buffered_bytes());
}

#[test]
fn longest_message_occupies_its_own_length_and_never_more_than_twice_what_arrived() {
    let bytes = [set_chunk_size(0x7fff_ffff), type0(6, 0, MAX_MESSAGE_BYTES, kind::VIDEO)].concat();
    let mut reader = media_reader();
    assert!(read_with(&mut reader, &bytes, 99).unwrap().is_empty());
    let (body, mut received) = (vec![7; MAX_MESSAGE_BYTES], 0);
    for mut piece in body.chunks(64 << 10) {
        received += piece.len();
        match reader.next(&mut piece).unwrap() {
            Some(message) => assert!(message.payload.len() == MAX_MESSAGE_BYTES && message.payload == body),
            None => {
                assert!(reader.buffered_bytes() <= (2 * received).clamp(INITIAL_RESERVE_BYTES, MAX_MESSAGE_BYTES))
            }
        }
    }
    assert_eq!((received, reader.buffered_bytes()), (MAX_MESSAGE_BYTES, 0));
}

#[test]
fn written_messages_round_trip() {
    let mut bytes = BytesMut::from(&set_chunk_size(message::SEND_CHUNK_BYTES as u32)[..]);
    let body = vec![7; 150_000];
    message::write(&mut bytes, kind::VIDEO, 1, 0x0200_0000, &[1, 2], &body);
    message::write(&mut bytes, kind::AUDIO, 1, 12, &[], &[]);
    let messages = read(&bytes, 1_000).unwrap();
    assert_eq!(summaries(&messages), [(kind::VIDEO, 0x0200_0000, 150_002), (kind::AUDIO, 12, 0)]);
}

#[test]
fn no_prefix_and_no_flipped_byte_panics() {
    let golden = golden();
    for end in 0..golden.len() {
        let _ = read(&golden[..end], 64);
    }
    for at in 0..golden.len() {
        for flip in [1, 4, 16, 64, 128, 255] {
            let mut bytes = golden.clone();
            bytes[at] ^= flip;
            let _ = read(&bytes, 1_000);
        }
    }
}
