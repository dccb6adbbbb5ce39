//! RTMP messages, and writing them as chunks (RTMP 1.0 §5.3.1, §5.4, §6.1).

use bytes::{BufMut, Bytes, BytesMut};

/// One RTMP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Message type, see [`kind`].
    pub kind: u8,
    /// Message stream id; 0 is the connection itself.
    pub stream: u32,
    /// Timestamp in milliseconds, modulo 2^32.
    pub timestamp_ms: u32,
    /// The message body, without the message header.
    pub payload: Bytes,
}

/// Message type ids.
pub mod kind {
    /// Set Chunk Size (RTMP 1.0 §5.4.1).
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message (RTMP 1.0 §5.4.2).
    pub const ABORT: u8 = 2;
    /// Acknowledgement (RTMP 1.0 §5.4.3).
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User Control (RTMP 1.0 §6.2).
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size (RTMP 1.0 §5.4.4).
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set Peer Bandwidth (RTMP 1.0 §5.4.5).
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio (RTMP 1.0 §7.1.4).
    pub const AUDIO: u8 = 8;
    /// Video (RTMP 1.0 §7.1.5).
    pub const VIDEO: u8 = 9;
    /// Data with a leading format byte (RTMP 1.0 §7.1.2).
    pub const DATA_AMF3: u8 = 15;
    /// Command with a leading format byte (RTMP 1.0 §7.1.1).
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0 (RTMP 1.0 §7.1.2).
    pub const DATA_AMF0: u8 = 18;
    /// Command in AMF0 (RTMP 1.0 §7.1.1).
    pub const COMMAND_AMF0: u8 = 20;
}

/// Chunk size of sent messages. It is announced to every client before the first message that is
/// longer than the default. Nearly all frames then need one chunk; SRS and ffmpeg use the same
/// size.
pub const SEND_CHUNK_BYTES: usize = 60_000;

/// Appends a message as chunks of [`SEND_CHUNK_BYTES`]. The header is always complete (type 0), so
/// the bytes do not depend on earlier messages and can be shared between players. The payload is
/// `head` followed by `body`.
///
/// Chunk stream ids: 4 for audio, 5 for data, 7 for video. The serializer of `rml_rtmp`, which
/// writes the replies, uses 2 and 6, and compresses headers only against its own previous ones. The
/// two therefore do not interfere.
pub fn write(out: &mut BytesMut, kind: u8, stream: u32, timestamp_ms: u32, head: &[u8], body: &[u8]) {
    let len = head.len() + body.len();
    debug_assert!(len <= 0xff_ffff, "a message of {len} bytes has no 24-bit length");
    let csid: u8 = match kind {
        kind::AUDIO => 4,
        kind::VIDEO => 7,
        _ => 5,
    };
    let extended = timestamp_ms >= 0xff_ffff;
    let chunks = len.div_ceil(SEND_CHUNK_BYTES).max(1);
    out.reserve(len + 12 + 4 + (chunks - 1) * 5);
    out.put_u8(csid);
    out.put_uint(u64::from(timestamp_ms.min(0xff_ffff)), 3);
    out.put_uint(len as u64 & 0xff_ffff, 3);
    out.put_u8(kind);
    out.put_u32_le(stream);
    if extended {
        out.put_u32(timestamp_ms);
    }
    let mut room = SEND_CHUNK_BYTES;
    for mut part in [head, body] {
        while !part.is_empty() {
            if room == 0 {
                out.put_u8(0xc0 | csid);
                if extended {
                    out.put_u32(timestamp_ms);
                }
                room = SEND_CHUNK_BYTES;
            }
            let (now, later) = part.split_at(part.len().min(room));
            out.extend_from_slice(now);
            room -= now.len();
            part = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use rml_rtmp::chunk_io::ChunkSerializer;
    use rml_rtmp::messages::MessagePayload;
    use rml_rtmp::time::RtmpTimestamp;

    use super::*;

    #[test]
    fn chunks_equal_those_of_rml_rtmp_except_for_the_chunk_stream_id() {
        for (len, timestamp) in
            [(1, 0), (10, 5_000), (59_999, 0xff_fffe), (60_000, 0xff_ffff), (130_000, 0x1_00ff_ffff_u64 as u32)]
        {
            let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut written = BytesMut::new();
            write(&mut written, kind::AUDIO, 1, timestamp, &body[..1], &body[1..]);
            let mut serializer = ChunkSerializer::new();
            serializer.set_max_chunk_size(SEND_CHUNK_BYTES as u32, RtmpTimestamp::new(0)).unwrap();
            let message = MessagePayload {
                timestamp: RtmpTimestamp::new(timestamp),
                type_id: kind::AUDIO,
                message_stream_id: 1,
                data: body.into(),
            };
            let expected = serializer.serialize(&message, false, true).unwrap().bytes;
            let csid = expected[0];
            let with_csid = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                let header = if timestamp >= 0xff_ffff { 16 } else { 12 };
                let mut at = 0;
                while at < bytes.len() {
                    bytes[at] = bytes[at] & 0xc0 | csid;
                    at += if at == 0 { header } else { header - 11 } + SEND_CHUNK_BYTES;
                }
                bytes
            };
            assert!(with_csid(&written) == with_csid(&expected), "{len} bytes at {timestamp} ms");
        }
    }
}
