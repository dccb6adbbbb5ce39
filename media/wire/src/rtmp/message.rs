//! RTMP messages and the chunks that carry one (RTMP 1.0 §5.3.1, §5.4, §6.1).

use bytes::{BufMut, Bytes, BytesMut};

/// One RTMP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Message type, see [`kind`].
    pub kind: u8,
    /// Message stream id; 0 is the connection itself.
    pub stream: u32,
    /// Milliseconds, modulo 2^32.
    pub timestamp_ms: u32,
    /// The body.
    pub payload: Bytes,
}

/// Message types.
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
    /// Data with a format byte before it (RTMP 1.0 §7.1.2).
    pub const DATA_AMF3: u8 = 15;
    /// Command with a format byte before it (RTMP 1.0 §7.1.1).
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0 (RTMP 1.0 §7.1.2).
    pub const DATA_AMF0: u8 = 18;
    /// Command in AMF0 (RTMP 1.0 §7.1.1).
    pub const COMMAND_AMF0: u8 = 20;
}

/// Bytes of a message in one chunk we send; announced to every client before the first message that is longer.
/// Nearly all frames then need one chunk; SRS and ffmpeg use the same size.
pub const SEND_CHUNK_BYTES: usize = 60_000;

/// Appends a message as chunks of [`SEND_CHUNK_BYTES`], always with a full (type 0) header, so that the bytes do not
/// depend on what was sent before and can be shared between players. `head` and `body` together are the payload.
///
/// Chunk stream ids: 4 audio, 5 data, 7 video. `rml_rtmp`'s serialiser, which writes the replies, uses 2 and 6 for them and
/// compresses headers against its own last ones only, so the two cannot disturb each other.
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
    fn chunks_equal_those_of_an_independent_serialiser_but_for_the_chunk_stream_id() {
        for (len, timestamp) in
            [(1, 0), (10, 5_000), (59_999, 0xff_fffe), (60_000, 0xff_ffff), (130_000, 0x1_00ff_ffff_u64 as u32)]
        {
            let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut ours = BytesMut::new();
            write(&mut ours, kind::AUDIO, 1, timestamp, &body[..1], &body[1..]);
            let mut serializer = ChunkSerializer::new();
            serializer.set_max_chunk_size(SEND_CHUNK_BYTES as u32, RtmpTimestamp::new(0)).unwrap();
            let message = MessagePayload {
                timestamp: RtmpTimestamp::new(timestamp),
                type_id: kind::AUDIO,
                message_stream_id: 1,
                data: body.into(),
            };
            let theirs = serializer.serialize(&message, false, true).unwrap().bytes;
            let csid = theirs[0];
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
            assert!(with_csid(&ours) == with_csid(&theirs), "{len} bytes at {timestamp} ms");
        }
    }
}
