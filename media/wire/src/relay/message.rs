//! What the two ends say to each other. A record holds one message or more.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | kind |
//! | 4 | length of the body, big endian |
//! | n | body |
//!
//! A kind that is not known is left out, so that a later minor version may add some.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::reader::Reader;
use super::track;
use crate::segment::Segment;
use crate::{Frame, MediaKind, MediaTime, Track};

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Edge: this stream, please. First and once.
    Subscribe {
        /// The app.
        app: String,
        /// The stream id in it.
        stream_id: String,
        /// True to get the finished segments that are kept, too; else only the last key group.
        history: bool,
        /// Nodes that may pass it on: 1 asks only the node itself, 2 lets it fetch the stream from another one.
        reach: u8,
    },
    /// Origin: what was there already has been sent; what follows comes as it happens.
    Live,
    /// Origin: here it is. Said again when it goes on as another life.
    Accepted {
        /// Which life of the stream: Unix time of its beginning in milliseconds, by the clock of where it is published.
        life: u64,
        /// How it is published.
        protocol: String,
        /// Nodes between the publisher's and the asking one, the answering one included: 1 from the publisher's own.
        hops: u8,
    },
    /// Origin: not from here. The last message.
    Refused(Refusal),
    /// Origin: the track of this kind is now this one; frames of that kind that follow belong to it.
    Track {
        /// The track.
        track: Track,
        /// True if pictures of this stream come in another order than they are shown.
        b_frames: bool,
    },
    /// Origin: a picture or sound.
    Frame(Media),
    /// Origin: what the publisher should change.
    Notice {
        /// Stable, for programs.
        code: String,
        /// For people.
        message: String,
    },
    /// Edge: a key frame, please.
    KeyFrame,
    /// Either end: are you there? The number comes back.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// Either end: the last message, and why.
    End(EndReason),
}

/// A frame whose track is known by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Picture or sound.
    pub kind: MediaKind,
    /// As [`Frame::key`].
    pub key: bool,
    /// As [`Frame::dts`], on the timeline of the stream's life.
    pub dts: MediaTime,
    /// As [`Frame::pts`].
    pub pts: MediaTime,
    /// As the origin numbered it.
    pub segment: Segment,
    /// True if frames are missing before this one: the reader was too slow.
    pub after_gap: bool,
    /// As [`Frame::payload`].
    pub payload: Bytes,
}

/// Why a stream is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is not here.
    NotFound,
    /// Too many edges are being served.
    Full,
    /// The node will end soon.
    Draining,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The publisher has ended the stream.
    Stream,
    /// The node will end soon: look for the stream again.
    Draining,
    /// Nobody watches any more.
    Idle,
    /// The stream is another node's now: look for it again.
    Moved,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It ends too early.
    #[error("a message is cut short")]
    Short,
    /// It has more than was announced.
    #[error("a message has {0} bytes too many")]
    Surplus(usize),
    /// A field is longer than it may be.
    #[error("a field has {len} bytes; {limit} are allowed")]
    TooLong {
        /// Length seen.
        len: usize,
        /// Length allowed.
        limit: usize,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
    /// A code that this version does not know.
    #[error("{what} {code} is not known")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// The code seen.
        code: u8,
    },
}

impl Message {
    /// Appends it to a record.
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Subscribe { app, stream_id, history, reach } => body(out, kind::SUBSCRIBE, |out| {
                text(out, app, MAX_NAME_BYTES);
                text(out, stream_id, MAX_NAME_BYTES);
                out.put_u8(u8::from(*history));
                out.put_u8(*reach);
            }),
            Self::Live => body(out, kind::LIVE, |_| {}),
            Self::Accepted { life, protocol, hops } => body(out, kind::ACCEPTED, |out| {
                out.put_u64(*life);
                text(out, protocol, MAX_PROTOCOL_BYTES);
                out.put_u8(*hops);
            }),
            Self::Refused(why) => body(out, kind::REFUSED, |out| out.put_u8(*why as u8 + 1)),
            Self::Track { track, b_frames } => body(out, kind::TRACK, |out| track::write(track, *b_frames, out)),
            Self::Frame(media) => write_media(media, out),
            Self::Notice { code, message } => body(out, kind::NOTICE, |out| {
                text(out, code, MAX_CODE_BYTES);
                text(out, message, MAX_SENTENCE_BYTES);
            }),
            Self::KeyFrame => body(out, kind::KEY_FRAME, |_| {}),
            Self::Ping(number) => body(out, kind::PING, |out| out.put_u64(*number)),
            Self::Pong(number) => body(out, kind::PONG, |out| out.put_u64(*number)),
            Self::End(why) => body(out, kind::END, |out| out.put_u8(*why as u8 + 1)),
        }
    }
}

/// Appends a frame to a record. `dts` and `pts` are those of `frame` less `shift`.
pub fn write_frame(frame: &Frame, segment: Segment, shift: MediaTime, after_gap: bool, out: &mut BytesMut) {
    out.reserve(frame.payload.len() + 64);
    write_media(
        &Media {
            kind: frame.kind(),
            key: frame.key,
            dts: frame.dts - shift,
            pts: frame.pts - shift,
            segment,
            after_gap,
            payload: frame.payload.clone(),
        },
        out,
    );
}

fn write_media(media: &Media, out: &mut BytesMut) {
    body(out, kind::FRAME, |out| {
        let video = media.kind == MediaKind::Video;
        out.put_u8(u8::from(video) | u8::from(media.key) << 1 | u8::from(media.after_gap) << 2);
        out.put_i64(media.dts.as_flicks());
        out.put_i64(media.pts.as_flicks());
        out.put_u64(media.segment.number);
        out.put_i64(media.segment.start.as_flicks());
        out.put_slice(&media.payload);
    });
}

/// The messages of one record.
#[derive(Debug)]
pub struct Messages(Bytes);

impl Messages {
    /// Of the content of a record.
    pub fn new(record: Bytes) -> Self {
        Self(record)
    }

    /// The next message this version knows, or `None` at the end.
    ///
    /// # Errors
    /// The connection is worth nothing after one.
    pub fn message(&mut self) -> Result<Option<Message>, MessageError> {
        while !self.0.is_empty() {
            let mut head = Reader(self.0.split_to(self.0.len().min(5)));
            let (kind, len) = (head.u8()?, head.u32()? as usize);
            if self.0.len() < len {
                return Err(MessageError::Short);
            }
            let mut body = Reader(self.0.split_to(len));
            if let Some(message) = read(kind, &mut body)? {
                return if body.0.is_empty() { Ok(Some(message)) } else { Err(MessageError::Surplus(body.0.len())) };
            }
        }
        Ok(None)
    }
}

fn read(kind: u8, body: &mut Reader) -> Result<Option<Message>, MessageError> {
    Ok(Some(match kind {
        kind::SUBSCRIBE => {
            let (app, stream_id) = (body.text(MAX_NAME_BYTES)?, body.text(MAX_NAME_BYTES)?);
            Message::Subscribe { app, stream_id, history: body.u8()? != 0, reach: body.u8()? }
        }
        kind::ACCEPTED => {
            let (life, protocol) = (body.u64()?, body.text(MAX_PROTOCOL_BYTES)?);
            Message::Accepted { life, protocol, hops: body.u8()? }
        }
        kind::REFUSED => Message::Refused(match body.u8()? {
            1 => Refusal::NotFound,
            2 => Refusal::Full,
            3 => Refusal::Draining,
            code => return Err(MessageError::Unknown { what: "refusal", code }),
        }),
        kind::TRACK => {
            let (track, b_frames) = track::read(body)?;
            Message::Track { track, b_frames }
        }
        kind::FRAME => {
            let flags = body.u8()?;
            Message::Frame(Media {
                kind: if flags & 1 != 0 { MediaKind::Video } else { MediaKind::Audio },
                key: flags & 2 != 0,
                after_gap: flags & 4 != 0,
                dts: MediaTime::from_flicks(body.i64()?),
                pts: MediaTime::from_flicks(body.i64()?),
                segment: Segment { number: body.u64()?, start: MediaTime::from_flicks(body.i64()?) },
                payload: std::mem::take(&mut body.0),
            })
        }
        kind::NOTICE => Message::Notice { code: body.text(MAX_CODE_BYTES)?, message: body.text(MAX_SENTENCE_BYTES)? },
        kind::LIVE => Message::Live,
        kind::KEY_FRAME => Message::KeyFrame,
        kind::PING => Message::Ping(body.u64()?),
        kind::PONG => Message::Pong(body.u64()?),
        kind::END => Message::End(match body.u8()? {
            1 => EndReason::Stream,
            2 => EndReason::Draining,
            3 => EndReason::Idle,
            4 => EndReason::Moved,
            code => return Err(MessageError::Unknown { what: "reason", code }),
        }),
        _ => return Ok(None),
    }))
}

fn body(out: &mut BytesMut, kind: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let at = out.len();
    out.put_u32(0);
    write(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Cuts what is too long, at a character.
fn text(out: &mut BytesMut, text: &str, limit: usize) {
    let text = &text[..text.floor_char_boundary(limit)];
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

/// An app's and a stream id's rule allows 64.
const MAX_NAME_BYTES: usize = 64;
const MAX_PROTOCOL_BYTES: usize = 16;
const MAX_CODE_BYTES: usize = 64;
const MAX_SENTENCE_BYTES: usize = 1_024;

mod kind {
    pub(super) const SUBSCRIBE: u8 = 1;
    pub(super) const KEY_FRAME: u8 = 2;
    pub(super) const PING: u8 = 3;
    pub(super) const PONG: u8 = 4;
    pub(super) const END: u8 = 5;
    pub(super) const ACCEPTED: u8 = 16;
    pub(super) const REFUSED: u8 = 17;
    pub(super) const TRACK: u8 = 18;
    pub(super) const FRAME: u8 = 19;
    pub(super) const NOTICE: u8 = 20;
    pub(super) const LIVE: u8 = 21;
}
