//! FLV and Enhanced RTMP tags, and their conversion to frames.

use bytes::Bytes;
use headwater_wire::rtmp::message::kind;
use headwater_wire::rtmp::{Ingest, Message, tag};

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let whole = Bytes::copy_from_slice(data);
    let _ = (tag::parse_video(whole.clone()), tag::parse_audio(whole.clone()));
    // The input is a sequence of messages: 1 byte kind, 1 byte length, 4 bytes timestamp, body.
    let mut ingest = Ingest::default();
    let mut rest = whole;
    while rest.len() > 6 {
        let head = rest.split_to(6);
        let payload = rest.split_to(usize::from(head[1]).min(rest.len()));
        let kind = if head[0] & 1 == 0 { kind::VIDEO } else { kind::AUDIO };
        let timestamp_ms = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
        let _ = ingest.on_message(Message { kind, stream: 1, timestamp_ms, payload });
    }
}
