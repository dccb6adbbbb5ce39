//! The server side of one RTMP connection after the handshake, as a value: messages in, events and reply bytes out.
//!
//! ```text
//!   new --connect--> Connecting --accept_connect--> Connected --publish--> Asked --accept--> Publishing
//!                        |                            ^  |                   |                   |
//!                  reject_connect                     |  +--play--> Asked ---+--accept--> Playing|
//!                                                     +------ refuse, deleteStream, end ---------+
//! ```
//!
//! RTMP 1.0 §7.2; Enhanced RTMP v2 "Enhancing NetConnection connect Command". It must not know which apps or streams
//! there are: whoever drives it answers its questions.

use super::amf0::{self, Amf0Error, Value};
use super::message::{Message, kind};
use super::mux::PLAY_STREAM;
use super::reply::{Replies, status_object};

/// What a client asks or sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Wants to connect: answer with [`Session::accept_connect`] or [`Session::reject_connect`].
    Connect {
        /// The app, without slashes at its ends and without query.
        app: String,
    },
    /// Wants to publish: answer with [`Session::accept`] or [`Session::refuse`].
    Publish {
        /// The stream id, without query.
        stream_id: String,
    },
    /// Wants to play: answer with [`Session::accept`] or [`Session::refuse`].
    Play {
        /// The stream id, without query.
        stream_id: String,
    },
    /// Audio or video of the stream it publishes.
    Media(Message),
    /// `onMetaData` of the stream it publishes.
    Metadata(Value),
    /// Publishes or plays no longer, or no longer wants to: an answer that is still due would be for nobody.
    Ended,
}

/// Why a client cannot be served any further. It is the client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A command is longer than any real one.
    #[error("command of {len} bytes exceeds {MAX_COMMAND_BYTES}")]
    CommandTooLong {
        /// Its length.
        len: usize,
    },
    /// A command cannot be read.
    #[error("command cannot be read")]
    Command(#[source] Amf0Error),
    /// A command without a name or transaction id.
    #[error("command has no name or no transaction id")]
    Nameless,
    /// A command at the wrong time.
    #[error("{0} at the wrong time")]
    Order(&'static str),
    /// Too many message streams.
    #[error("more than {MAX_STREAMS} message streams")]
    TooManyStreams,
    /// It asks and asks, and does not read the answers.
    #[error("more than {MAX_REPLY_BYTES} bytes of replies are waiting")]
    Replies,
}

/// Status codes (RTMP 1.0 §7.2.2, and the names Flash Media Server made known).
pub mod code {
    /// The name is taken or not allowed.
    pub const BAD_NAME: &str = "NetStream.Publish.BadName";
    /// The server takes no more streams.
    pub const DENIED: &str = "NetStream.Publish.Denied";
    /// There is no such stream.
    pub const STREAM_NOT_FOUND: &str = "NetStream.Play.StreamNotFound";
    /// Playing failed.
    pub const PLAY_FAILED: &str = "NetStream.Play.Failed";
}

/// Longest command or data message that is read.
pub const MAX_COMMAND_BYTES: usize = 64 << 10;
/// Message streams at the same time; real clients use one.
pub const MAX_STREAMS: u32 = 8;
/// Replies that may wait to be sent.
pub const MAX_REPLY_BYTES: usize = 64 << 10;

/// One connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    /// Bit n is set while message stream n + 1 exists.
    streams: u32,
    /// True if the client understands a request to reconnect.
    reconnects: bool,
    replies: Replies,
    received: u32,
    acknowledged: u32,
    window_bytes: u32,
}

#[derive(Debug)]
enum State {
    New,
    Connecting { transaction: f64, enhanced: bool },
    Connected,
    Asked { stream: u32, role: Role, stream_id: String },
    Active { stream: u32, role: Role },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Publish,
    Play,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            state: State::New,
            streams: 0,
            reconnects: false,
            replies: Replies::default(),
            received: 0,
            acknowledged: 0,
            window_bytes: WINDOW_BYTES,
        }
    }
}

impl Session {
    /// Bytes to send now.
    pub fn take_replies(&mut self) -> Vec<u8> {
        self.replies.take()
    }

    /// Counts received bytes and acknowledges them when due (RTMP 1.0 §5.4.3).
    pub fn on_received(&mut self, bytes: usize) {
        self.received = self.received.wrapping_add(bytes as u32);
        if !matches!(self.state, State::New) && self.received.wrapping_sub(self.acknowledged) >= self.window_bytes {
            self.acknowledged = self.received;
            self.replies.acknowledgement(self.received);
        }
    }

    /// Takes one message.
    ///
    /// # Errors
    /// See [`SessionError`]; the connection must be closed then.
    pub fn on_message(&mut self, message: Message) -> Result<Option<Event>, SessionError> {
        if self.replies.len() > MAX_REPLY_BYTES {
            return Err(SessionError::Replies);
        }
        match message.kind {
            kind::AUDIO | kind::VIDEO => Ok(self.publishes_on(message.stream).then_some(Event::Media(message))),
            kind::COMMAND_AMF0 => self.on_command(message.stream, &message.payload),
            kind::COMMAND_AMF3 => self.on_command(message.stream, without_format(&message.payload)),
            kind::DATA_AMF0 if self.publishes_on(message.stream) => Ok(metadata(&message.payload)),
            kind::DATA_AMF3 if self.publishes_on(message.stream) => Ok(metadata(without_format(&message.payload))),
            kind::USER_CONTROL => {
                // Ping Request; the others (Set Buffer Length, Ping Response) need no answer (RTMP 1.0 §7.1.7).
                if let Some(&[0, 6, a, b, c, d]) = message.payload.first_chunk::<6>() {
                    self.replies.pong(u32::from_be_bytes([a, b, c, d]));
                }
                Ok(None)
            }
            kind::WINDOW_ACK_SIZE => {
                if let Some(size) = message.payload.first_chunk::<4>() {
                    self.window_bytes = u32::from_be_bytes(*size).clamp(MIN_WINDOW_BYTES, i32::MAX as u32);
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Lets the client in.
    pub fn accept_connect(&mut self) {
        let State::Connecting { transaction, enhanced } = self.state else { return };
        self.state = State::Connected;
        self.replies.welcome(WINDOW_BYTES);
        let mut properties = vec![
            ("fmsVer".to_owned(), "FMS/3,5,7,7009".into()),
            ("capabilities".to_owned(), 31.0.into()),
            ("mode".to_owned(), 1.0.into()),
        ];
        if enhanced {
            let codecs = FOUR_CCS.iter().map(|&name| name.into()).collect();
            properties.push(("fourCcList".to_owned(), Value::StrictArray(codecs)));
            properties.push(("capsEx".to_owned(), CAPS_EX.into()));
        }
        let mut info = status_object("status", "NetConnection.Connect.Success", "Connection succeeded.");
        if let Value::Object(fields) = &mut info {
            fields.push(("objectEncoding".to_owned(), 0.0.into()));
        }
        self.replies.command(0, &["_result".into(), transaction.into(), Value::Object(properties), info]);
    }

    /// Turns the client away; close the connection once this is sent.
    pub fn reject_connect(&mut self, description: &str) {
        let State::Connecting { transaction, .. } = self.state else { return };
        self.state = State::New;
        let info = status_object("error", "NetConnection.Connect.Rejected", description);
        self.replies.command(0, &["_error".into(), transaction.into(), Value::Null, info]);
    }

    /// Lets the client publish or play, whichever it asked for.
    pub fn accept(&mut self) {
        let State::Asked { stream, role, stream_id } = std::mem::replace(&mut self.state, State::Connected) else {
            return;
        };
        self.replies.stream_begin(stream);
        match role {
            Role::Publish => {
                let said = format!("{stream_id} is now published.");
                self.replies.status(stream, "status", "NetStream.Publish.Start", &said);
            }
            Role::Play => {
                let said = format!("Playing {stream_id}.");
                self.replies.status(stream, "status", "NetStream.Play.Reset", &said);
                self.replies.status(stream, "status", "NetStream.Play.Start", &said);
            }
        }
        self.state = State::Active { stream, role };
    }

    /// Refuses to publish or play; the client may ask again. `code` is one of [`code`].
    pub fn refuse(&mut self, code: &str, description: &str) {
        let State::Asked { stream, .. } = self.state else { return };
        self.state = State::Connected;
        self.replies.status(stream, "error", code, description);
    }

    /// Tells a player that the stream is over; it may ask for another one.
    pub fn end_of_stream(&mut self) {
        if let State::Active { stream, role: Role::Play } = self.state {
            self.state = State::Connected;
            self.replies.status(
                stream,
                "status",
                "NetStream.Play.UnpublishNotify",
                "The stream is no longer published.",
            );
            self.replies.stream_eof(stream);
        }
    }

    /// Asks the client to connect again while it is served on, if it knows how; false if it does not (Enhanced RTMP v2,
    /// "Reconnect Request").
    pub fn ask_to_reconnect(&mut self, description: &str) -> bool {
        let asks = self.reconnects && !matches!(self.state, State::New | State::Connecting { .. });
        if asks {
            self.replies.status(0, "status", "NetConnection.Connect.ReconnectRequest", description);
        }
        asks
    }

    /// Says farewell, whatever the client does; close the connection once this is sent.
    pub fn close(&mut self, description: &str) {
        match self.state {
            State::Active { role: Role::Play, .. } => self.end_of_stream(),
            State::Active { stream, role: Role::Publish } => {
                self.replies.status(stream, "status", "NetStream.Unpublish.Success", description);
            }
            State::New | State::Connecting { .. } => return,
            State::Connected | State::Asked { .. } => {}
        }
        self.state = State::Connected;
        self.replies.status(0, "status", "NetConnection.Connect.Closed", description);
    }

    fn publishes_on(&self, message_stream: u32) -> bool {
        matches!(self.state, State::Active { stream, role: Role::Publish } if stream == message_stream)
    }

    fn on_command(&mut self, stream: u32, payload: &[u8]) -> Result<Option<Event>, SessionError> {
        if payload.len() > MAX_COMMAND_BYTES {
            return Err(SessionError::CommandTooLong { len: payload.len() });
        }
        let values = amf0::decode(payload).map_err(SessionError::Command)?;
        let name = values.first().and_then(Value::as_str).ok_or(SessionError::Nameless)?;
        let transaction = values.get(1).and_then(Value::as_number).ok_or(SessionError::Nameless)?;
        let argument = values.get(3);
        match name {
            "connect" => self.on_connect(transaction, values.get(2)),
            "createStream" => self.on_create_stream(transaction),
            "publish" => self.on_ask(Role::Publish, stream, argument),
            "play" => self.on_ask(Role::Play, stream, argument),
            "deleteStream" => {
                let id = argument.and_then(Value::as_number).unwrap_or(0.0) as u32;
                Ok(self.on_delete(id, true))
            }
            "closeStream" => Ok(self.on_delete(stream, false)),
            "FCUnpublish" => Ok(None),
            "releaseStream" | "FCPublish" => {
                self.replies.command(0, &["_result".into(), transaction.into(), Value::Null, Value::Undefined]);
                Ok(None)
            }
            // _checkbw, getStreamLength, FCSubscribe, pause, receiveAudio, …: nobody waits for an answer.
            _ => Ok(None),
        }
    }

    fn on_connect(&mut self, transaction: f64, object: Option<&Value>) -> Result<Option<Event>, SessionError> {
        if !matches!(self.state, State::New) {
            return Err(SessionError::Order("connect"));
        }
        let text = |name| object.and_then(|o| o.get(name)).and_then(Value::as_str);
        // Some clients leave `app` out and name it in `tcUrl` only.
        let app = match text("app").filter(|app| !app.is_empty()) {
            Some(app) => app,
            None => text("tcUrl").and_then(|url| url.split_once("://")?.1.split_once('/')).map_or("", |(_, path)| path),
        };
        let app = without_query(app).trim_matches('/').to_owned();
        let enhanced = object.is_some_and(|o| o.get("fourCcList").is_some() || o.get("capsEx").is_some());
        let caps = object.and_then(|o| o.get("capsEx")).and_then(Value::as_number).unwrap_or_default();
        self.reconnects = caps as u32 & CAPS_EX_RECONNECT != 0;
        self.state = State::Connecting { transaction, enhanced };
        Ok(Some(Event::Connect { app }))
    }

    fn on_create_stream(&mut self, transaction: f64) -> Result<Option<Event>, SessionError> {
        if matches!(self.state, State::New | State::Connecting { .. }) {
            return Err(SessionError::Order("createStream"));
        }
        let free = self.streams.trailing_ones();
        if free >= MAX_STREAMS {
            return Err(SessionError::TooManyStreams);
        }
        self.streams |= 1 << free;
        let id = f64::from(free + 1);
        self.replies.command(0, &["_result".into(), transaction.into(), Value::Null, id.into()]);
        Ok(None)
    }

    fn on_ask(&mut self, role: Role, stream: u32, name: Option<&Value>) -> Result<Option<Event>, SessionError> {
        let exists = stream.checked_sub(1).is_some_and(|bit| bit < MAX_STREAMS && self.streams >> bit & 1 == 1);
        if !matches!(self.state, State::Connected) || !exists {
            return Err(SessionError::Order(if role == Role::Play { "play" } else { "publish" }));
        }
        let name = name.and_then(Value::as_str).unwrap_or_default();
        let stream_id = without_query(name).to_owned();
        self.state = State::Asked { stream, role, stream_id: stream_id.clone() };
        match role {
            Role::Publish => Ok(Some(Event::Publish { stream_id })),
            Role::Play if stream != PLAY_STREAM => {
                self.refuse(code::PLAY_FAILED, "Play on the first message stream of the connection.");
                Ok(None)
            }
            Role::Play => Ok(Some(Event::Play { stream_id })),
        }
    }

    fn on_delete(&mut self, id: u32, delete: bool) -> Option<Event> {
        if delete && (1..=MAX_STREAMS).contains(&id) {
            self.streams &= !(1 << (id - 1));
        }
        let (stream, publishes) = match self.state {
            State::Active { stream, role } => (stream, role == Role::Publish),
            // An answer that comes now is for nobody.
            State::Asked { stream, .. } => (stream, false),
            State::New | State::Connecting { .. } | State::Connected => return None,
        };
        if stream != id {
            return None;
        }
        self.state = State::Connected;
        if publishes {
            self.replies.status(stream, "status", "NetStream.Unpublish.Success", "The stream is no longer published.");
        }
        Some(Event::Ended)
    }
}

/// `@setDataFrame`, "onMetaData", object; or without the first. Anything else is nothing.
fn metadata(payload: &[u8]) -> Option<Event> {
    if payload.len() > MAX_COMMAND_BYTES {
        return None;
    }
    let mut values = amf0::decode(payload).ok()?.into_iter().peekable();
    values.next_if(|v| v.as_str() == Some("@setDataFrame"));
    values.next_if(|v| v.as_str() == Some("onMetaData"))?;
    values.next().map(Event::Metadata)
}

/// AMF3 messages begin with a format byte; 0 says that AMF0 follows, and nobody sends anything else.
fn without_format(payload: &[u8]) -> &[u8] {
    match payload {
        [0, rest @ ..] => rest,
        all => all,
    }
}

/// A URL's query may hold a token: it is no part of a name, and must not get into logs.
fn without_query(name: &str) -> &str {
    name.split('?').next().unwrap_or_default()
}

/// What others use; a client may set another one.
const WINDOW_BYTES: u32 = 2_500_000;
/// A client that asks for an acknowledgement every few bytes does not get it.
const MIN_WINDOW_BYTES: u32 = 64 << 10;
/// What Enhanced RTMP's `fourCcList` names here.
const FOUR_CCS: [&str; 5] = ["avc1", "hvc1", "av01", "mp4a", "Opus"];
/// Enhanced RTMP v2 `capsEx`: reconnect requests, and we step over ModEx parts; no multitrack.
const CAPS_EX: f64 = 5.0;
const CAPS_EX_RECONNECT: u32 = 1;

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
