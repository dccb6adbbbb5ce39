//! Writes the server's control messages and command replies.

use rml_rtmp::chunk_io::ChunkSerializer;
use rml_rtmp::messages::{MessagePayload, PeerBandwidthLimitType, RtmpMessage, UserControlEventType};
use rml_rtmp::time::RtmpTimestamp;

use super::amf0::{self, Value};
use super::message::{SEND_CHUNK_BYTES, kind};

/// Collects replies until they are sent, so that the replies to one command are one write.
pub(super) struct Replies {
    serializer: ChunkSerializer,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Replies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replies({} bytes)", self.bytes.len())
    }
}

impl Default for Replies {
    fn default() -> Self {
        Self { serializer: ChunkSerializer::new(), bytes: Vec::new() }
    }
}

impl Replies {
    /// Returns the bytes to send and leaves an empty buffer without allocation.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds the control messages before the reply to `connect` (RTMP 1.0 §7.2.1.1).
    pub(super) fn connect_preamble(&mut self, window_bytes: u32) {
        self.message(RtmpMessage::WindowAcknowledgement { size: window_bytes });
        self.message(RtmpMessage::SetPeerBandwidth { size: window_bytes, limit_type: PeerBandwidthLimitType::Dynamic });
        if let Ok(packet) = self.serializer.set_max_chunk_size(SEND_CHUNK_BYTES as u32, RtmpTimestamp::new(0)) {
            self.bytes.extend(packet.bytes);
        }
    }

    /// Adds an Acknowledgement with the total number of bytes received, modulo 2^32
    /// (RTMP 1.0 §5.4.3).
    pub(super) fn acknowledgement(&mut self, total: u32) {
        self.message(RtmpMessage::Acknowledgement { sequence_number: total });
    }

    pub(super) fn stream_begin(&mut self, stream: u32) {
        self.user_control(UserControlEventType::StreamBegin, Some(stream), None);
    }

    pub(super) fn stream_eof(&mut self, stream: u32) {
        self.user_control(UserControlEventType::StreamEof, Some(stream), None);
    }

    pub(super) fn pong(&mut self, timestamp_ms: u32) {
        self.user_control(UserControlEventType::PingResponse, None, Some(RtmpTimestamp::new(timestamp_ms)));
    }

    /// Adds an `onStatus` command (RTMP 1.0 §7.2.2). `stream` 0 refers to the connection.
    pub(super) fn status(&mut self, stream: u32, level: &str, code: &str, description: &str) {
        let info = status_object(level, code, description);
        self.command(stream, &["onStatus".into(), 0.0.into(), Value::Null, info]);
    }

    /// Adds a command with these values.
    pub(super) fn command(&mut self, stream: u32, values: &[Value]) {
        self.payload(MessagePayload {
            timestamp: RtmpTimestamp::new(0),
            type_id: kind::COMMAND_AMF0,
            message_stream_id: stream,
            data: amf0::encode(values).into(),
        });
    }

    fn user_control(&mut self, event_type: UserControlEventType, id: Option<u32>, time: Option<RtmpTimestamp>) {
        self.message(RtmpMessage::UserControl { event_type, stream_id: id, buffer_length: None, timestamp: time });
    }

    fn message(&mut self, message: RtmpMessage) {
        if let Ok(payload) = message.into_message_payload(RtmpTimestamp::new(0), 0) {
            self.payload(payload);
        }
    }

    fn payload(&mut self, payload: MessagePayload) {
        // The only error is a message of more than 16 MiB; replies are shorter than 1 KiB.
        if let Ok(packet) = self.serializer.serialize(&payload, false, false) {
            self.bytes.extend(packet.bytes);
        }
    }
}

/// Returns the information object of `onStatus`, `_result` and `_error`.
pub(super) fn status_object(level: &str, code: &str, description: &str) -> Value {
    Value::Object(vec![
        ("level".to_owned(), level.into()),
        ("code".to_owned(), code.into()),
        ("description".to_owned(), description.into()),
    ])
}
