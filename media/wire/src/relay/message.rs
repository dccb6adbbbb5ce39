//! The messages of the relay protocol. A record contains one or more messages.
//!
//! | bytes | content |
//! | --- | --- |
//! | 1 | kind |
//! | 4 | length of the body, big endian |
//! | n | body |
//!
//! Messages of unknown kind are skipped, so that a later minor version can add kinds.

use std::num::NonZeroU32;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::error::MessageError;
use super::reader::FieldReader;
use super::track;
use crate::segment::Segment;
use crate::targets::{MAX_SEGMENT_DURATION, Targets};
use crate::{Frame, MediaKind, MediaTime, Track};

/// A message between an edge (the client) and an origin (the server).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Edge: requests a stream. The first message, sent once.
    Subscribe {
        /// Name of the app.
        app: String,
        /// Stream id within the app.
        stream_id: String,
        /// True to receive the retained finished segments too; false for only the latest GOP.
        history: bool,
        /// Maximum number of nodes on the path: 1 allows only the node itself, 2 lets it fetch the
        /// stream from another node.
        max_hops: u8,
    },
    /// Origin: all retained frames have been sent; the following frames are live.
    Live,
    /// Origin: the stream follows. Sent again when a new generation of the stream begins.
    Accepted {
        /// Generation of the stream: Unix time of its start in milliseconds, by the clock of the
        /// node to which it is published.
        generation: u64,
        /// Protocol of the publisher, such as `rtmp`.
        protocol: String,
        /// Number of nodes between the publisher and the requesting node: 1 if the answering node
        /// is the origin of the stream.
        hops: u8,
    },
    /// Origin: the stream is not available from this node. The last message.
    Refused(Refusal),
    /// Origin: the track of the following frames of its kind.
    Track {
        /// The new track.
        track: Track,
        /// True if the stream contains B-frames.
        b_frames: bool,
    },
    /// Origin: the constants of the HLS playlists, from the next frame on. Origins of earlier
    /// versions do not send it.
    Targets(Targets),
    /// Origin: a video frame or an audio packet.
    Frame(MediaFrame),
    /// Origin: a recommendation for the publisher, such as to turn off B-frames.
    Notice {
        /// Stable identifier, for programs.
        code: String,
        /// Sentence for display.
        message: String,
    },
    /// Edge: requests a key frame.
    KeyFrame,
    /// Either end: liveness check. The peer returns the number in a `Pong`.
    Ping(u64),
    /// The response to a ping.
    Pong(u64),
    /// Either end: closes the connection. The last message.
    End(EndReason),
    /// Origin: names the owner of the stream. Sent after every [`Message::Accepted`], and whenever
    /// no frame was sent for a while. Only to peers with the feature.
    Heartbeat {
        /// The incarnation that owns the stream.
        owner: Owner,
        /// For how long, in milliseconds, the sender has received neither a frame nor a heartbeat
        /// from the owner; 0 if the sender is the owner.
        silent_ms: u32,
    },
    /// A node that has a publisher of the stream: asks for how long its owner has been silent. The
    /// first message, sent once.
    AskWitness {
        /// Name of the app.
        app: String,
        /// Stream id within the app.
        stream_id: String,
        /// The owner according to the registry.
        owner: Owner,
    },
    /// The response to [`Message::AskWitness`], and the last message: for how long, in
    /// milliseconds, this node has received neither a frame nor a heartbeat from that owner. `None`
    /// if it does not watch the stream, or from another owner.
    Testimony(Option<u32>),
    /// A node that has taken over the stream: the peer should resolve it again. The first and only
    /// message.
    Moved {
        /// Name of the app.
        app: String,
        /// Stream id within the app.
        stream_id: String,
    },
}

/// The owner of a stream: one incarnation of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Id of the node.
    pub node: String,
    /// Epoch of its incarnation.
    pub boot_epoch: u64,
}

/// A frame without its track: it belongs to the last [`Message::Track`] of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaFrame {
    /// Video or audio.
    pub kind: MediaKind,
    /// See [`Frame::key`].
    pub key: bool,
    /// See [`Frame::dts`]; on the timeline of the stream generation.
    pub dts: MediaTime,
    /// See [`Frame::pts`].
    pub pts: MediaTime,
    /// The segment, numbered by the origin.
    pub segment: Segment,
    /// True if frames before this one were dropped because the receiver was too slow.
    pub after_gap: bool,
    /// See [`Frame::payload`].
    pub payload: Bytes,
}

/// Reason for refusing a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The node does not have the stream.
    NotFound,
    /// The node serves the maximum number of edges.
    Full,
    /// The node is shutting down.
    Draining,
}

/// Reason for closing a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The publisher ended the stream.
    StreamEnded,
    /// The node is shutting down; the edge should resolve the stream again.
    Draining,
    /// The stream has no more viewers on the edge.
    Idle,
    /// The stream moved to another node; the edge should resolve it again.
    Moved,
}

impl Message {
    /// Appends the message to the content of a record. Texts beyond their limit are truncated.
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Subscribe { app, stream_id, history, max_hops } => write_body(out, kind::SUBSCRIBE, |out| {
                write_text(out, app, MAX_NAME_BYTES);
                write_text(out, stream_id, MAX_NAME_BYTES);
                out.put_u8(u8::from(*history));
                out.put_u8(*max_hops);
            }),
            Self::Live => write_body(out, kind::LIVE, |_| {}),
            Self::Accepted { generation, protocol, hops } => write_body(out, kind::ACCEPTED, |out| {
                out.put_u64(*generation);
                write_text(out, protocol, MAX_PROTOCOL_BYTES);
                out.put_u8(*hops);
            }),
            Self::Refused(why) => write_body(out, kind::REFUSED, |out| out.put_u8(*why as u8 + 1)),
            Self::Track { track, b_frames } => write_body(out, kind::TRACK, |out| track::write(track, *b_frames, out)),
            Self::Targets(targets) => write_body(out, kind::TARGETS, |out| write_targets(targets, out)),
            Self::Frame(media) => write_media(media, out),
            Self::Notice { code, message } => write_body(out, kind::NOTICE, |out| {
                write_text(out, code, MAX_CODE_BYTES);
                write_text(out, message, MAX_SENTENCE_BYTES);
            }),
            Self::KeyFrame => write_body(out, kind::KEY_FRAME, |_| {}),
            Self::Ping(number) => write_body(out, kind::PING, |out| out.put_u64(*number)),
            Self::Pong(number) => write_body(out, kind::PONG, |out| out.put_u64(*number)),
            Self::End(why) => write_body(out, kind::END, |out| out.put_u8(*why as u8 + 1)),
            Self::Heartbeat { owner, silent_ms } => write_body(out, kind::HEARTBEAT, |out| {
                write_owner(out, owner);
                out.put_u32(*silent_ms);
            }),
            Self::AskWitness { app, stream_id, owner } => write_body(out, kind::ASK_WITNESS, |out| {
                write_text(out, app, MAX_NAME_BYTES);
                write_text(out, stream_id, MAX_NAME_BYTES);
                write_owner(out, owner);
            }),
            Self::Testimony(silent_ms) => write_body(out, kind::TESTIMONY, |out| {
                out.put_u8(u8::from(silent_ms.is_some()));
                out.put_u32(silent_ms.unwrap_or(0));
            }),
            Self::Moved { app, stream_id } => write_body(out, kind::MOVED, |out| {
                write_text(out, app, MAX_NAME_BYTES);
                write_text(out, stream_id, MAX_NAME_BYTES);
            }),
        }
    }
}

/// Appends a frame to the content of a record. `shift` is subtracted from `dts` and `pts`.
pub fn write_frame(frame: &Frame, segment: Segment, shift: MediaTime, after_gap: bool, out: &mut BytesMut) {
    out.reserve(frame.payload.len() + 64);
    write_media(
        &MediaFrame {
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

fn write_media(media: &MediaFrame, out: &mut BytesMut) {
    write_body(out, kind::FRAME, |out| {
        let video = media.kind == MediaKind::Video;
        out.put_u8(u8::from(video) | u8::from(media.key) << 1 | u8::from(media.after_gap) << 2);
        out.put_i64(media.dts.as_flicks());
        out.put_i64(media.pts.as_flicks());
        out.put_u64(media.segment.number);
        out.put_i64(media.segment.start.as_flicks());
        out.put_slice(&media.payload);
    });
}

/// | bytes | content |
/// | --- | --- |
/// | 4 | part target, milliseconds |
/// | 4 | target duration, seconds; 0 if it is not known yet |
/// | 1 | bit 0: has parts; bit 1: independent segments |
fn write_targets(targets: &Targets, out: &mut BytesMut) {
    out.put_u32(u32::try_from(targets.part.as_ms()).unwrap_or(u32::MAX));
    out.put_u32(targets.segment_secs.map_or(0, NonZeroU32::get));
    out.put_u8(u8::from(targets.has_parts) | u8::from(targets.independent) << 1);
}

fn read_targets(body: &mut FieldReader) -> Result<Targets, MessageError> {
    let max_ms = MAX_SEGMENT_DURATION.as_ms();
    let part = MediaTime::from_ms(i64::from(body.u32()?).clamp(1, max_ms));
    let segment_secs = NonZeroU32::new(body.u32()?.min((max_ms / 1_000) as u32));
    let flags = body.u8()?;
    Ok(Targets { part, segment_secs, has_parts: flags & 1 != 0, independent: flags & 2 != 0 })
}

/// Reads the messages of one record.
#[derive(Debug)]
pub struct MessageReader(Bytes);

impl MessageReader {
    /// Creates a reader for the content of a record.
    pub fn new(record: Bytes) -> Self {
        Self(record)
    }

    /// Returns the next message that this version knows, or `None` at the end of the record.
    ///
    /// # Errors
    /// See [`MessageError`]. The connection must then be closed.
    pub fn next_message(&mut self) -> Result<Option<Message>, MessageError> {
        while !self.0.is_empty() {
            let mut head = FieldReader(self.0.split_to(self.0.len().min(5)));
            let (kind, len) = (head.u8()?, head.u32()? as usize);
            if self.0.len() < len {
                return Err(MessageError::Truncated);
            }
            let mut body = FieldReader(self.0.split_to(len));
            if let Some(message) = read_message(kind, &mut body)? {
                return if body.0.is_empty() {
                    Ok(Some(message))
                } else {
                    Err(MessageError::TrailingBytes(body.0.len()))
                };
            }
        }
        Ok(None)
    }
}

fn read_message(kind: u8, body: &mut FieldReader) -> Result<Option<Message>, MessageError> {
    Ok(Some(match kind {
        kind::SUBSCRIBE => {
            let (app, stream_id) = (body.text(MAX_NAME_BYTES)?, body.text(MAX_NAME_BYTES)?);
            Message::Subscribe { app, stream_id, history: body.u8()? != 0, max_hops: body.u8()? }
        }
        kind::ACCEPTED => {
            let (generation, protocol) = (body.u64()?, body.text(MAX_PROTOCOL_BYTES)?);
            Message::Accepted { generation, protocol, hops: body.u8()? }
        }
        kind::REFUSED => Message::Refused(match body.u8()? {
            1 => Refusal::NotFound,
            2 => Refusal::Full,
            3 => Refusal::Draining,
            code => return Err(MessageError::Unknown { field: "refusal", code }),
        }),
        kind::TRACK => {
            let (track, b_frames) = track::read(body)?;
            Message::Track { track, b_frames }
        }
        kind::TARGETS => Message::Targets(read_targets(body)?),
        kind::FRAME => {
            let flags = body.u8()?;
            Message::Frame(MediaFrame {
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
            1 => EndReason::StreamEnded,
            2 => EndReason::Draining,
            3 => EndReason::Idle,
            4 => EndReason::Moved,
            code => return Err(MessageError::Unknown { field: "reason", code }),
        }),
        kind::HEARTBEAT => Message::Heartbeat { owner: read_owner(body)?, silent_ms: body.u32()? },
        kind::ASK_WITNESS => {
            let (app, stream_id) = (body.text(MAX_NAME_BYTES)?, body.text(MAX_NAME_BYTES)?);
            Message::AskWitness { app, stream_id, owner: read_owner(body)? }
        }
        kind::TESTIMONY => {
            let (is_witness, silent_ms) = (body.u8()? != 0, body.u32()?);
            Message::Testimony(is_witness.then_some(silent_ms))
        }
        kind::MOVED => Message::Moved { app: body.text(MAX_NAME_BYTES)?, stream_id: body.text(MAX_NAME_BYTES)? },
        _ => return Ok(None),
    }))
}

fn write_body(out: &mut BytesMut, kind: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let at = out.len();
    out.put_u32(0);
    write(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends a text with its length, truncated to `limit` bytes at a character boundary.
fn write_text(out: &mut BytesMut, text: &str, limit: usize) {
    let text = &text[..text.floor_char_boundary(limit)];
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn write_owner(out: &mut BytesMut, owner: &Owner) {
    write_text(out, &owner.node, MAX_NODE_BYTES);
    out.put_u64(owner.boot_epoch);
}

fn read_owner(body: &mut FieldReader) -> Result<Owner, MessageError> {
    Ok(Owner { node: body.text(MAX_NODE_BYTES)?, boot_epoch: body.u64()? })
}

/// The maximum length of an app name or a stream id.
const MAX_NAME_BYTES: usize = 128;
/// An instance id of EC2 has 19 bytes, a host name up to 253.
const MAX_NODE_BYTES: usize = 256;
const MAX_PROTOCOL_BYTES: usize = 16;
const MAX_CODE_BYTES: usize = 64;
const MAX_SENTENCE_BYTES: usize = 1_024;

mod kind {
    pub(super) const SUBSCRIBE: u8 = 1;
    pub(super) const KEY_FRAME: u8 = 2;
    pub(super) const PING: u8 = 3;
    pub(super) const PONG: u8 = 4;
    pub(super) const END: u8 = 5;
    pub(super) const ASK_WITNESS: u8 = 6;
    pub(super) const MOVED: u8 = 7;
    pub(super) const ACCEPTED: u8 = 16;
    pub(super) const REFUSED: u8 = 17;
    pub(super) const TRACK: u8 = 18;
    pub(super) const FRAME: u8 = 19;
    pub(super) const NOTICE: u8 = 20;
    pub(super) const LIVE: u8 = 21;
    pub(super) const TARGETS: u8 = 22;
    pub(super) const HEARTBEAT: u8 = 23;
    pub(super) const TESTIMONY: u8 = 24;
}
