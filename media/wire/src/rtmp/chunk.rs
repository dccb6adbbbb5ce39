//! Reads the chunk stream of one peer into messages (RTMP 1.0 §5.3).
//!
//! Every chunk stream has its own buffer, so messages may interleave. A payload is copied once, into a buffer of its own
//! size: a frame that is kept (in a key group) then holds exactly its own memory, and no receive buffer has to live
//! between two reads. Set Chunk Size and Abort are carried out here, because they change how the next byte is read.

use bytes::Bytes;

use super::message::{Message, kind};

/// Why a peer's chunk stream cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A message is longer than allowed.
    #[error("message of {len} bytes exceeds {limit}")]
    MessageTooLong {
        /// Length in the header.
        len: usize,
        /// Bytes at most.
        limit: usize,
    },
    /// Messages are begun that are longer, all together, than allowed.
    #[error("messages of {len} bytes in all are begun, which exceeds {limit}")]
    BegunTooLong {
        /// Sum of the lengths in their headers.
        len: usize,
        /// Bytes at most.
        limit: usize,
    },
    /// Too many messages are begun and not finished.
    #[error("more than {MAX_PARTIAL} messages are interleaved")]
    TooManyPartial,
    /// Too many chunk streams.
    #[error("more than {MAX_CHUNK_STREAMS} chunk streams are in use")]
    TooManyChunkStreams,
    /// A chunk refers to a header that was never sent.
    #[error("chunk stream {csid} begins without a full header")]
    NoHeader {
        /// Chunk stream id.
        csid: u32,
    },
    /// Set Chunk Size with a size we do not take.
    #[error("chunk size {size} is outside {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES}")]
    ChunkSize {
        /// Size asked for.
        size: u32,
    },
    /// A control message is too short for its field.
    #[error("control message of type {kind} has {len} bytes")]
    Control {
        /// Message type.
        kind: u8,
        /// Its length.
        len: usize,
    },
}

/// Longest message taken. A key frame of 4 MiB is one of 25 Mbit/s that comes every second and is all of the second.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// The same before media is expected, and then for all that is begun at the same time: no command is longer, and
/// strangers hold no memory.
pub const MAX_COMMANDS_BYTES: usize = 64 << 10;
/// Messages begun and not finished at the same time.
pub const MAX_PARTIAL: usize = 8;
/// Chunk streams one peer may use; real encoders use 3 to 6.
pub const MAX_CHUNK_STREAMS: usize = 64;
/// Smallest chunk size taken; also the size before the first Set Chunk Size.
pub const MIN_CHUNK_BYTES: u32 = 128;
/// Largest chunk size taken.
pub const MAX_CHUNK_BYTES: u32 = 1 << 20;

/// Follows the chunk stream of one peer, who may send commands only until [`ChunkReader::expect_media`].
#[derive(Debug)]
pub struct ChunkReader {
    expects_media: bool,
    /// True once bytes of a picture or of sound have come.
    media: bool,
    chunk_bytes: usize,
    streams: Vec<ChunkStream>,
    partial: usize,
    /// The chunk whose payload comes next: index of its stream, bytes to come.
    payload: Option<(usize, usize)>,
    /// A header that was cut by the end of a read.
    stash: [u8; MAX_HEADER_BYTES],
    stashed: usize,
}

/// What the last header of a chunk stream said, and the message being put together.
#[derive(Debug, Default)]
struct ChunkStream {
    csid: u32,
    timestamp: u32,
    /// What a type 3 chunk adds when it begins a message.
    delta: u32,
    len: usize,
    kind: u8,
    stream: u32,
    /// The field that type 3 chunks of this message repeat, if it did not fit 24 bits.
    extended: Option<u32>,
    buffer: Vec<u8>,
    begun: bool,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self {
            expects_media: false,
            media: false,
            chunk_bytes: MIN_CHUNK_BYTES as usize,
            streams: Vec::new(),
            partial: 0,
            payload: None,
            stash: [0; MAX_HEADER_BYTES],
            stashed: 0,
        }
    }
}

impl ChunkReader {
    /// Takes bytes from `input` until a message is whole; `None` once all are taken.
    ///
    /// # Errors
    /// See [`ChunkError`]; the connection cannot go on then.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ChunkError> {
        while !input.is_empty() {
            let message = if self.stashed > 0 { self.step_over_stash(input)? } else { self.step_or_stash(input)? };
            if let Some(message) = message
                && let Some(message) = self.control(message)?
            {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// The peer was let in: messages may have [`MAX_MESSAGE_BYTES`] from now on.
    pub fn expect_media(&mut self) {
        self.expects_media = true;
    }

    /// The peer has no more media to send: [`MAX_COMMANDS_BYTES`] hold again, and longer messages that are begun are
    /// forgotten.
    pub fn expect_commands(&mut self) {
        self.expects_media = false;
        for stream in self.streams.iter_mut().filter(|s| s.begun && s.len > MAX_COMMANDS_BYTES) {
            stream.begun = false;
            stream.buffer = Vec::new();
            self.partial -= 1;
        }
    }

    /// True once after bytes of pictures or sound have come, in whole messages or not.
    pub fn take_media(&mut self) -> bool {
        std::mem::take(&mut self.media)
    }

    fn step_or_stash(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ChunkError> {
        let (taken, message) = self.step(input)?;
        *input = &input[taken..];
        if taken == 0 {
            // Only a header can be too short to use, and then it is shorter than the longest one.
            self.stash[..input.len()].copy_from_slice(input);
            self.stashed = input.len();
            *input = &[];
        }
        Ok(message)
    }

    /// One step over a header that began in an earlier read.
    fn step_over_stash(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ChunkError> {
        let old = self.stashed;
        let fresh = input.len().min(MAX_HEADER_BYTES - old);
        let mut joined = self.stash;
        joined[old..old + fresh].copy_from_slice(&input[..fresh]);
        let (taken, message) = self.step(&joined[..old + fresh])?;
        if taken == 0 {
            self.stash = joined;
            self.stashed = old + fresh;
            *input = &input[fresh..];
        } else if taken >= old {
            self.stashed = 0;
            *input = &input[taken - old..];
        } else {
            // Bytes looked at as a possible extended timestamp were payload after all.
            self.stash[..old - taken].copy_from_slice(&joined[taken..old]);
            self.stashed = old - taken;
        }
        Ok(message)
    }

    /// Takes one header or a piece of payload; takes nothing if the header is not whole.
    fn step(&mut self, input: &[u8]) -> Result<(usize, Option<Message>), ChunkError> {
        let Some((index, left)) = self.payload else {
            let Some((taken, index)) = self.header(input)? else { return Ok((0, None)) };
            let stream = &self.streams[index];
            let left = (stream.len - stream.buffer.len()).min(self.chunk_bytes);
            self.payload = Some((index, left));
            return Ok((taken, if left == 0 { self.finish_chunk(index) } else { None }));
        };
        let taken = left.min(input.len());
        let stream = &mut self.streams[index];
        stream.buffer.extend_from_slice(&input[..taken]);
        self.media |= matches!(stream.kind, kind::AUDIO | kind::VIDEO);
        self.payload = Some((index, left - taken));
        Ok((taken, if taken == left { self.finish_chunk(index) } else { None }))
    }

    fn finish_chunk(&mut self, index: usize) -> Option<Message> {
        self.payload = None;
        let stream = &mut self.streams[index];
        if stream.buffer.len() < stream.len {
            return None;
        }
        stream.begun = false;
        self.partial -= 1;
        Some(Message {
            kind: stream.kind,
            stream: stream.stream,
            timestamp_ms: stream.timestamp,
            payload: Bytes::from(std::mem::take(&mut stream.buffer)),
        })
    }

    /// Reads a chunk header (RTMP 1.0 §5.3.1): its length and the index of its stream, or `None` if it is not whole.
    fn header(&mut self, input: &[u8]) -> Result<Option<(usize, usize)>, ChunkError> {
        let Some((format, csid, basic)) = basic_header(input) else { return Ok(None) };
        let known = self.streams.iter().position(|s| s.csid == csid);
        let rest = &input[basic..];
        if format == 3 {
            let index = known.ok_or(ChunkError::NoHeader { csid })?;
            let Some(extra) = self.streams[index].repeated_extended(rest) else { return Ok(None) };
            if !self.streams[index].begun {
                let stream = &mut self.streams[index];
                stream.timestamp = stream.timestamp.wrapping_add(stream.delta);
                self.begin(index)?;
            }
            return Ok(Some((basic + extra, index)));
        }
        let fields = [11, 7, 3][usize::from(format)];
        let Some(head) = rest.get(..fields) else { return Ok(None) };
        let short_time = be24(&head[..3]);
        let (time, extra) = if short_time == 0xff_ffff {
            let Some(long) = rest.get(fields..).and_then(|r| r.first_chunk::<4>()) else { return Ok(None) };
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
        let stream = &mut self.streams[index];
        if format <= 1 {
            stream.len = be24(&head[3..6]) as usize;
            stream.kind = head[6];
        }
        if let Some(id) = head.get(7..).and_then(|r| r.first_chunk::<4>()) {
            stream.stream = u32::from_le_bytes(*id);
        }
        stream.timestamp = if format == 0 { time } else { stream.timestamp.wrapping_add(time) };
        stream.delta = time;
        stream.extended = (extra > 0).then_some(time);
        self.begin(index)?;
        Ok(Some((basic + fields + extra, index)))
    }

    /// Begins a message; one that was not finished on this chunk stream is forgotten.
    fn begin(&mut self, index: usize) -> Result<(), ChunkError> {
        let stream = &mut self.streams[index];
        let limit = if self.expects_media { MAX_MESSAGE_BYTES } else { MAX_COMMANDS_BYTES };
        if stream.len > limit {
            return Err(ChunkError::MessageTooLong { len: stream.len, limit });
        }
        stream.buffer.clear();
        // Not more at once than a peer can send in little time: lengths are only claims.
        stream.buffer.reserve_exact(stream.len.min(FIRST_RESERVE_BYTES));
        if !std::mem::replace(&mut stream.begun, true) {
            self.partial += 1;
        }
        if self.partial > MAX_PARTIAL {
            return Err(ChunkError::TooManyPartial);
        }
        if !self.expects_media {
            let len = self.streams.iter().filter(|s| s.begun).map(|s| s.len).sum();
            if len > limit {
                return Err(ChunkError::BegunTooLong { len, limit });
            }
        }
        Ok(())
    }

    /// Carries out what changes the reading itself; gives every other message back.
    fn control(&mut self, message: Message) -> Result<Option<Message>, ChunkError> {
        if !matches!(message.kind, kind::SET_CHUNK_SIZE | kind::ABORT) {
            return Ok(Some(message));
        }
        let short = ChunkError::Control { kind: message.kind, len: message.payload.len() };
        let value = u32::from_be_bytes(*message.payload.first_chunk::<4>().ok_or(short)?);
        if message.kind == kind::SET_CHUNK_SIZE {
            if !(MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&value) {
                return Err(ChunkError::ChunkSize { size: value });
            }
            self.chunk_bytes = value as usize;
        } else if let Some(stream) = self.streams.iter_mut().find(|s| s.csid == value && s.begun) {
            stream.begun = false;
            stream.buffer = Vec::new();
            self.partial -= 1;
        }
        Ok(None)
    }
}

impl ChunkStream {
    /// Bytes of extended timestamp behind a type 3 basic header: 0 or 4; `None` if that cannot be told yet.
    ///
    /// RTMP 1.0 §5.3.1.3 has the field repeated; some senders leave it out. Four bytes that equal the field are it.
    fn repeated_extended(&self, rest: &[u8]) -> Option<usize> {
        let Some(extended) = self.extended else { return Some(0) };
        // A prefix that already differs needs no more bytes.
        let expect = extended.to_be_bytes();
        let seen = rest.len().min(4);
        if rest[..seen] != expect[..seen] {
            return Some(0);
        }
        (seen == 4).then_some(4)
    }
}

/// Format, chunk stream id, and length of a basic header (RTMP 1.0 §5.3.1.1).
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
const FIRST_RESERVE_BYTES: usize = 128 << 10;

#[cfg(test)]
#[path = "chunk_test.rs"]
mod tests;
