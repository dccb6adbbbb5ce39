//! Reassembles the chunks of one peer into messages (RTMP 1.0 §5.3).
//!
//! Every chunk stream has its own buffer, so messages may be interleaved. A payload is copied once,
//! into a buffer of its own size: a retained frame (in a GOP buffer) uses exactly its own memory,
//! and no receive buffer is needed between two reads. Set Chunk Size and Abort are handled here,
//! because they affect how the next byte is read.

use bytes::Bytes;

use super::message::{Message, kind};

/// A violation of the chunk format or of a limit. The connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A message exceeds the maximum length.
    #[error("message of {len} bytes exceeds {limit}")]
    MessageTooLong {
        /// Length in the header.
        len: usize,
        /// Maximum length in the current state.
        limit: usize,
    },
    /// The unfinished messages together exceed the maximum length.
    #[error("unfinished messages of {len} bytes in total exceed {limit}")]
    PartialTooLong {
        /// Sum of the lengths in their headers.
        len: usize,
        /// Maximum total length.
        limit: usize,
    },
    /// Too many messages are unfinished at the same time.
    #[error("more than {MAX_PARTIAL_MESSAGES} messages are interleaved")]
    TooManyPartialMessages,
    /// Too many chunk streams.
    #[error("more than {MAX_CHUNK_STREAMS} chunk streams are in use")]
    TooManyChunkStreams,
    /// A chunk refers to an earlier header that was not sent.
    #[error("chunk stream {csid} begins without a full header")]
    NoHeader {
        /// Chunk stream id.
        csid: u32,
    },
    /// A Set Chunk Size message has a size that RTMP 1.0 §5.4.1 does not allow.
    #[error("chunk size {size} is outside 1 to {MAX_CHUNK_BYTES}")]
    InvalidChunkSize {
        /// Size in the message.
        size: u32,
    },
    /// A control message is too short for its field.
    #[error("control message of type {kind} has {len} bytes")]
    ControlTooShort {
        /// Type of the message.
        kind: u8,
        /// Length of the message.
        len: usize,
    },
}

/// Maximum message length while media is expected: all that the 24-bit length can express (RTMP 1.0
/// §6.1.1). An intra-coded 4K frame has 4 MiB and more.
pub const MAX_MESSAGE_BYTES: usize = 0xff_ffff;
/// Maximum total length of all unfinished messages while media is expected: the longest message,
/// and others interleaved with it.
pub const MAX_PARTIAL_BYTES: usize = 20 << 20;
/// Maximum total length of all unfinished messages before media is expected. No real command is
/// longer, and unauthenticated clients cannot occupy more memory.
pub const MAX_COMMAND_PHASE_BYTES: usize = 64 << 10;
/// Maximum number of unfinished messages.
pub const MAX_PARTIAL_MESSAGES: usize = 8;
/// Maximum number of chunk streams of one peer; real encoders use 3 to 6.
pub const MAX_CHUNK_STREAMS: usize = 64;
/// Chunk size before the first Set Chunk Size (RTMP 1.0 §5.4.1).
pub const DEFAULT_CHUNK_BYTES: u32 = 128;
/// Maximum chunk size (RTMP 1.0 §5.4.1). No memory depends on it: the length of the message limits
/// what a chunk can hold.
pub const MAX_CHUNK_BYTES: u32 = 0x7fff_ffff;

/// Reassembles the messages of one peer. Until [`ChunkReader::expect_media`] is called, message
/// lengths are limited to those of commands.
///
/// ```
/// use headwater_wire::rtmp::ChunkReader;
/// use headwater_wire::rtmp::message::kind;
///
/// // A type 0 chunk: chunk stream 3, timestamp 40 ms, 2 bytes of audio on message stream 1.
/// let chunk = [3, 0, 0, 40, 0, 0, 2, kind::AUDIO, 1, 0, 0, 0, 0xaf, 0x01];
/// let (first_read, second_read) = chunk.split_at(9);
///
/// let mut reader = ChunkReader::default();
/// assert_eq!(reader.next(&mut &first_read[..]), Ok(None));
/// let message = reader.next(&mut &second_read[..]).unwrap().unwrap();
/// assert_eq!((message.kind, message.timestamp_ms), (kind::AUDIO, 40));
/// assert_eq!(message.payload[..], [0xaf, 0x01]);
/// ```
#[derive(Debug)]
pub struct ChunkReader {
    expects_media: bool,
    /// True if payload bytes of audio or video messages were received.
    media_received: bool,
    /// See [`ChunkReader::hold_media`].
    holds_media: bool,
    chunk_bytes: usize,
    streams: Vec<ChunkStream>,
    partial_messages: usize,
    /// The chunk whose payload is being read: index of its stream, remaining bytes.
    payload: Option<(usize, usize)>,
    /// The beginning of a header that was split by the end of a read, and its length.
    partial_header: [u8; MAX_HEADER_BYTES],
    partial_header_bytes: usize,
}

/// The result of one step of [`ChunkReader::next`].
enum Step {
    /// This number of bytes was consumed; 0 if they are an incomplete header.
    Taken(usize, Option<Message>),
    /// The next message is held back.
    Held,
}

/// The result of reading one chunk header.
enum Header {
    /// The length of the header, and the index of its chunk stream.
    Complete(usize, usize),
    Incomplete,
    /// The header begins a message that is held back.
    Held,
}

/// The last header of a chunk stream, and the message being reassembled.
#[derive(Debug, Default)]
struct ChunkStream {
    csid: u32,
    timestamp: u32,
    /// The timestamp delta that a type 3 chunk adds when it begins a message.
    delta: u32,
    len: usize,
    kind: u8,
    message_stream: u32,
    /// The extended timestamp, which type 3 chunks of this message repeat.
    extended: Option<u32>,
    buffer: Vec<u8>,
    in_progress: bool,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self {
            expects_media: false,
            media_received: false,
            holds_media: false,
            chunk_bytes: DEFAULT_CHUNK_BYTES as usize,
            streams: Vec::new(),
            partial_messages: 0,
            payload: None,
            partial_header: [0; MAX_HEADER_BYTES],
            partial_header_bytes: 0,
        }
    }
}

impl ChunkReader {
    /// Consumes bytes from `input` until a message is complete. Returns `None` when `input` is
    /// empty and more bytes are needed, or when it begins with media that is
    /// [held back](Self::hold_media).
    ///
    /// # Errors
    /// See [`ChunkError`]. The connection must then be closed.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ChunkError> {
        while !input.is_empty() {
            let step = if self.partial_header_bytes > 0 {
                self.step_from_partial_header(input)?
            } else {
                self.step_from_input(input)?
            };
            let Step::Taken(_, message) = step else { return Ok(None) };
            if let Some(message) = message
                && let Some(message) = self.apply_control(message)?
            {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Allows messages of up to [`MAX_MESSAGE_BYTES`], because the peer was accepted as a
    /// publisher.
    pub fn expect_media(&mut self) {
        self.expects_media = true;
    }

    /// Restores the limit of [`MAX_COMMAND_PHASE_BYTES`], because the peer stopped publishing.
    /// Unfinished messages that exceed it are discarded.
    pub fn expect_commands(&mut self) {
        self.expects_media = false;
        for stream in self.streams.iter_mut().filter(|s| s.in_progress && s.len > MAX_COMMAND_PHASE_BYTES) {
            stream.in_progress = false;
            stream.buffer = Vec::new();
            self.partial_messages -= 1;
        }
    }

    /// While `hold` is true, [`Self::next`] stops before the next audio, video or data message and
    /// leaves its bytes in the input: the peer asked to publish and was not answered yet.
    pub fn hold_media(&mut self, hold: bool) {
        self.holds_media = hold;
    }

    /// Returns the memory that unfinished messages occupy.
    pub fn buffered_bytes(&self) -> usize {
        self.streams.iter().map(|stream| stream.buffer.capacity()).sum()
    }

    /// Returns true if payload bytes of audio or video were received since the last call, even if
    /// their messages are not complete.
    pub fn take_media_received(&mut self) -> bool {
        std::mem::take(&mut self.media_received)
    }

    fn step_from_input(&mut self, input: &mut &[u8]) -> Result<Step, ChunkError> {
        let step = self.step(input)?;
        match step {
            Step::Taken(0, _) => {
                // Only an incomplete header is not consumed, and it is shorter than
                // MAX_HEADER_BYTES.
                self.partial_header[..input.len()].copy_from_slice(input);
                self.partial_header_bytes = input.len();
                *input = &[];
            }
            Step::Taken(taken, _) => *input = &input[taken..],
            Step::Held => {}
        }
        Ok(step)
    }

    /// Performs one step with a header that began in an earlier read.
    fn step_from_partial_header(&mut self, input: &mut &[u8]) -> Result<Step, ChunkError> {
        let old = self.partial_header_bytes;
        let fresh = input.len().min(MAX_HEADER_BYTES - old);
        let mut joined = self.partial_header;
        joined[old..old + fresh].copy_from_slice(&input[..fresh]);
        let step = self.step(&joined[..old + fresh])?;
        match step {
            Step::Held => {}
            Step::Taken(0, _) => {
                self.partial_header = joined;
                self.partial_header_bytes = old + fresh;
                *input = &input[fresh..];
            }
            Step::Taken(taken, _) if taken >= old => {
                self.partial_header_bytes = 0;
                *input = &input[taken - old..];
            }
            // Some bytes that could have been an extended timestamp are payload.
            Step::Taken(taken, _) => {
                self.partial_header[..old - taken].copy_from_slice(&joined[taken..old]);
                self.partial_header_bytes = old - taken;
            }
        }
        Ok(step)
    }

    /// Consumes one header or a part of a payload.
    fn step(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        let Some((index, left)) = self.payload else {
            let (taken, index) = match self.read_header(input)? {
                Header::Complete(taken, index) => (taken, index),
                Header::Incomplete => return Ok(Step::Taken(0, None)),
                Header::Held => return Ok(Step::Held),
            };
            let stream = &self.streams[index];
            let left = (stream.len - stream.buffer.len()).min(self.chunk_bytes);
            self.payload = Some((index, left));
            return Ok(Step::Taken(taken, if left == 0 { self.finish_chunk(index) } else { None }));
        };
        let taken = left.min(input.len());
        let stream = &mut self.streams[index];
        stream.append(&input[..taken]);
        self.media_received |= matches!(stream.kind, kind::AUDIO | kind::VIDEO);
        self.payload = Some((index, left - taken));
        Ok(Step::Taken(taken, if taken == left { self.finish_chunk(index) } else { None }))
    }

    fn finish_chunk(&mut self, index: usize) -> Option<Message> {
        self.payload = None;
        let stream = &mut self.streams[index];
        if stream.buffer.len() < stream.len {
            return None;
        }
        stream.in_progress = false;
        self.partial_messages -= 1;
        Some(Message {
            kind: stream.kind,
            stream: stream.message_stream,
            timestamp_ms: stream.timestamp,
            payload: Bytes::from(std::mem::take(&mut stream.buffer)),
        })
    }

    /// Reads a chunk header (RTMP 1.0 §5.3.1).
    fn read_header(&mut self, input: &[u8]) -> Result<Header, ChunkError> {
        let Some((format, csid, basic)) = basic_header(input) else { return Ok(Header::Incomplete) };
        let known = self.streams.iter().position(|s| s.csid == csid);
        let rest = &input[basic..];
        if format == 3 {
            let index = known.ok_or(ChunkError::NoHeader { csid })?;
            let stream = &self.streams[index];
            if !stream.in_progress && self.is_held(stream.kind) {
                return Ok(Header::Held);
            }
            let Some(extra) = stream.repeated_extended_bytes(rest) else { return Ok(Header::Incomplete) };
            if !stream.in_progress {
                let stream = &mut self.streams[index];
                stream.timestamp = stream.timestamp.wrapping_add(stream.delta);
                self.begin_message(index)?;
            }
            return Ok(Header::Complete(basic + extra, index));
        }
        let fields = [11, 7, 3][usize::from(format)];
        let Some(head) = rest.get(..fields) else { return Ok(Header::Incomplete) };
        let short_time = be24(&head[..3]);
        let (time, extra) = if short_time == 0xff_ffff {
            let Some(long) = rest.get(fields..).and_then(|r| r.first_chunk::<4>()) else {
                return Ok(Header::Incomplete);
            };
            (u32::from_be_bytes(*long), 4)
        } else {
            (short_time, 0)
        };
        let index = match known {
            Some(index) => index,
            None if format != 0 => return Err(ChunkError::NoHeader { csid }),
            None if self.streams.len() >= MAX_CHUNK_STREAMS => return Err(ChunkError::TooManyChunkStreams),
            None => {
                self.streams.push(ChunkStream { csid, ..ChunkStream::default() });
                self.streams.len() - 1
            }
        };
        if self.is_held(head.get(6).copied().unwrap_or(self.streams[index].kind)) {
            return Ok(Header::Held);
        }
        let stream = &mut self.streams[index];
        if format <= 1 {
            stream.len = be24(&head[3..6]) as usize;
            stream.kind = head[6];
        }
        if let Some(id) = head.get(7..).and_then(|r| r.first_chunk::<4>()) {
            stream.message_stream = u32::from_le_bytes(*id);
        }
        stream.timestamp = if format == 0 { time } else { stream.timestamp.wrapping_add(time) };
        stream.delta = time;
        stream.extended = (extra > 0).then_some(time);
        self.begin_message(index)?;
        Ok(Header::Complete(basic + fields + extra, index))
    }

    fn is_held(&self, kind: u8) -> bool {
        self.holds_media && matches!(kind, kind::AUDIO | kind::VIDEO | kind::DATA_AMF0 | kind::DATA_AMF3)
    }

    /// Begins a message. Discards an unfinished one on the same chunk stream.
    fn begin_message(&mut self, index: usize) -> Result<(), ChunkError> {
        let stream = &mut self.streams[index];
        let (limit, total_limit) = if self.expects_media {
            (MAX_MESSAGE_BYTES, MAX_PARTIAL_BYTES)
        } else {
            (MAX_COMMAND_PHASE_BYTES, MAX_COMMAND_PHASE_BYTES)
        };
        if stream.len > limit {
            return Err(ChunkError::MessageTooLong { len: stream.len, limit });
        }
        stream.buffer.clear();
        // The declared length may be false, so reserve no more than a peer can send in a short
        // time.
        stream.buffer.reserve_exact(stream.len.min(INITIAL_RESERVE_BYTES));
        if !std::mem::replace(&mut stream.in_progress, true) {
            self.partial_messages += 1;
        }
        if self.partial_messages > MAX_PARTIAL_MESSAGES {
            return Err(ChunkError::TooManyPartialMessages);
        }
        let len = self.streams.iter().filter(|s| s.in_progress).map(|s| s.len).sum();
        if len > total_limit {
            return Err(ChunkError::PartialTooLong { len, limit: total_limit });
        }
        Ok(())
    }

    /// Handles Set Chunk Size and Abort; returns every other message.
    fn apply_control(&mut self, message: Message) -> Result<Option<Message>, ChunkError> {
        if !matches!(message.kind, kind::SET_CHUNK_SIZE | kind::ABORT) {
            return Ok(Some(message));
        }
        let short = ChunkError::ControlTooShort { kind: message.kind, len: message.payload.len() };
        let value = u32::from_be_bytes(*message.payload.first_chunk::<4>().ok_or(short)?);
        if message.kind == kind::SET_CHUNK_SIZE {
            if !(1..=MAX_CHUNK_BYTES).contains(&value) {
                return Err(ChunkError::InvalidChunkSize { size: value });
            }
            self.chunk_bytes = value as usize;
        } else if let Some(stream) = self.streams.iter_mut().find(|s| s.csid == value && s.in_progress) {
            stream.in_progress = false;
            stream.buffer = Vec::new();
            self.partial_messages -= 1;
        }
        Ok(None)
    }
}

impl ChunkStream {
    /// Appends payload. The buffer grows by doubling, and never beyond the length of the message.
    fn append(&mut self, bytes: &[u8]) {
        let needed = self.buffer.len() + bytes.len();
        if needed > self.buffer.capacity() {
            let capacity = (2 * self.buffer.capacity()).max(needed).min(self.len);
            self.buffer.reserve_exact(capacity.saturating_sub(self.buffer.len()));
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the length of the extended timestamp after a type 3 basic header: 0 or 4, or `None`
    /// if more bytes are needed to decide.
    ///
    /// RTMP 1.0 §5.3.1.3 requires the field to be repeated, but some senders omit it. Four bytes
    /// that equal the field are treated as the field.
    fn repeated_extended_bytes(&self, rest: &[u8]) -> Option<usize> {
        let Some(extended) = self.extended else { return Some(0) };
        // If the available bytes already differ, no more are needed.
        let expect = extended.to_be_bytes();
        let seen = rest.len().min(4);
        if rest[..seen] != expect[..seen] {
            return Some(0);
        }
        (seen == 4).then_some(4)
    }
}

/// Returns format, chunk stream id and length of a basic header (RTMP 1.0 §5.3.1.1).
fn basic_header(input: &[u8]) -> Option<(u8, u32, usize)> {
    let first = *input.first()?;
    let format = first >> 6;
    Some(match first & 63 {
        0 => (format, 64 + u32::from(*input.get(1)?), 2),
        1 => (format, 64 + u32::from(*input.get(1)?) + (u32::from(*input.get(2)?) << 8), 3),
        n => (format, u32::from(n), 1),
    })
}

fn be24(bytes: &[u8]) -> u32 {
    bytes.iter().take(3).fold(0, |n, &b| n << 8 | u32::from(b))
}

const MAX_HEADER_BYTES: usize = 3 + 11 + 4;
const INITIAL_RESERVE_BYTES: usize = 128 << 10;

#[cfg(test)]
#[path = "chunk_test.rs"]
mod tests;
