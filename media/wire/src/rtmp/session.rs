//! The server side of one RTMP connection after the handshake: messages in, events and reply bytes
//! out.
//!
//! ```text
//!   New --connect--> Connecting --accept_connect--> Connected <---------------------------------+
//!                        |                              |                                       |
//!                  reject_connect                 publish, play                                 |
//!                                                       v                                       |
//!                                                   Requested --refuse, closed by the client--->+
//!                                                       |                                       |
//!                                                     accept                                    |
//!                                                       v                                       |
//!                                                     Active ---end_of_stream, close, closed----+
//!                                                (publish or play)    by the client
//! ```
//!
//! RTMP 1.0 §7.2; Enhanced RTMP v2 "Enhancing NetConnection connect Command". The session must not
//! know which apps and streams exist: the caller accepts or refuses each request.

use super::amf0::{self, Amf0Error, Value};
use super::message::{Message, kind};
use super::mux::PLAY_STREAM;
use super::reply::{Replies, status_object};

/// A request or media from the client.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A request to connect: answer with [`Session::accept_connect`] or
    /// [`Session::reject_connect`].
    Connect {
        /// App name, without leading and trailing slashes and without query.
        app: String,
        /// The query of the app name, if there is one.
        query: Option<Query>,
    },
    /// A request to publish: answer with [`Session::accept`] or [`Session::refuse`].
    Publish {
        /// The stream id, without query.
        stream_id: String,
        /// The query of the stream id, if there is one.
        query: Option<Query>,
    },
    /// A request to play: answer with [`Session::accept`] or [`Session::refuse`].
    Play {
        /// The stream id, without query.
        stream_id: String,
        /// The query of the stream id, if there is one.
        query: Option<Query>,
    },
    /// Audio or video of the published stream.
    Media(Message),
    /// `onMetaData` of the published stream.
    Metadata(Value),
    /// The client stopped publishing or playing, or withdrew its request. A pending request must
    /// not be answered any more.
    Ended,
}

/// What a client put behind the `?` of an app or stream name. It may contain a token: `Debug` hides
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct Query(String);

impl Query {
    /// The text, not decoded, without the `?`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Query(…)")
    }
}

/// A protocol violation by the client. The connection must be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A command exceeds the maximum length.
    #[error("command of {len} bytes exceeds {MAX_COMMAND_BYTES}")]
    CommandTooLong {
        /// Length of the command.
        len: usize,
    },
    /// A command is not valid AMF0.
    #[error("command is malformed")]
    InvalidCommand(#[source] Amf0Error),
    /// A command has no name or no transaction id.
    #[error("command has no name or no transaction id")]
    MissingNameOrTransaction,
    /// A command is not allowed in the current state.
    #[error("unexpected {0} command")]
    UnexpectedCommand(&'static str),
    /// The client created too many message streams.
    #[error("more than {MAX_STREAMS} message streams")]
    TooManyStreams,
    /// The client keeps sending requests that are refused.
    #[error("{MAX_REFUSALS} requests in a row were refused")]
    TooManyRefusals,
    /// The client keeps sending requests but does not read the replies.
    #[error("more than {MAX_REPLY_BYTES} bytes of replies are pending")]
    TooManyReplies,
}

/// Status codes (RTMP 1.0 §7.2.2, and those of Flash Media Server).
pub mod code {
    /// The stream name is in use or not allowed.
    pub const BAD_NAME: &str = "NetStream.Publish.BadName";
    /// The client may not publish this stream.
    pub const UNAUTHORIZED: &str = "NetStream.Publish.Unauthorized";
    /// The server accepts no more publishers.
    pub const DENIED: &str = "NetStream.Publish.Denied";
    /// The stream does not exist.
    pub const STREAM_NOT_FOUND: &str = "NetStream.Play.StreamNotFound";
    /// The stream cannot be played.
    pub const PLAY_FAILED: &str = "NetStream.Play.Failed";
}

/// Maximum length of a command or data message.
pub const MAX_COMMAND_BYTES: usize = 64 << 10;
/// Maximum number of message streams; real clients use one.
pub const MAX_STREAMS: u32 = 8;
/// Requests to publish or play that may be refused one after the other; then the connection is
/// closed. A client that tries again for longer connects again.
pub const MAX_REFUSALS: u32 = 10;
/// Maximum total length of pending replies.
pub const MAX_REPLY_BYTES: usize = 64 << 10;

/// The server session of one RTMP connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    /// Bit n is set while message stream n + 1 exists.
    streams: u32,
    /// True if the client supports the reconnect request of Enhanced RTMP.
    supports_reconnect: bool,
    /// Requests refused since the last one that was accepted.
    refusals: u32,
    replies: Replies,
    received_bytes: u32,
    acknowledged_bytes: u32,
    window_bytes: u32,
}

#[derive(Debug)]
enum State {
    New,
    Connecting { transaction: f64, enhanced: bool },
    Connected,
    Requested { stream: u32, role: Role, stream_id: String },
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
            supports_reconnect: false,
            refusals: 0,
            replies: Replies::default(),
            received_bytes: 0,
            acknowledged_bytes: 0,
            window_bytes: WINDOW_BYTES,
        }
    }
}

impl Session {
    /// Returns the bytes to send and removes them from the session.
    pub fn take_replies(&mut self) -> Vec<u8> {
        self.replies.take()
    }

    /// Counts received bytes and acknowledges them when due (RTMP 1.0 §5.4.3).
    pub fn on_received(&mut self, bytes: usize) {
        self.received_bytes = self.received_bytes.wrapping_add(bytes as u32);
        if !matches!(self.state, State::New)
            && self.received_bytes.wrapping_sub(self.acknowledged_bytes) >= self.window_bytes
        {
            self.acknowledged_bytes = self.received_bytes;
            self.replies.acknowledgement(self.received_bytes);
        }
    }

    /// Processes one message.
    ///
    /// # Errors
    /// See [`SessionError`]. The connection must then be closed.
    pub fn on_message(&mut self, message: Message) -> Result<Option<Event>, SessionError> {
        if self.replies.len() > MAX_REPLY_BYTES {
            return Err(SessionError::TooManyReplies);
        }
        match message.kind {
            kind::AUDIO | kind::VIDEO => Ok(self.publishes_on(message.stream).then_some(Event::Media(message))),
            kind::COMMAND_AMF0 => self.on_command(message.stream, &message.payload),
            kind::COMMAND_AMF3 => self.on_command(message.stream, strip_format_byte(&message.payload)),
            kind::DATA_AMF0 if self.publishes_on(message.stream) => Ok(metadata(&message.payload)),
            kind::DATA_AMF3 if self.publishes_on(message.stream) => Ok(metadata(strip_format_byte(&message.payload))),
            kind::USER_CONTROL => {
                // Ping Request. The other events (Set Buffer Length, Ping Response) need no reply
                // (RTMP 1.0 §7.1.7).
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

    /// Accepts the connect request.
    pub fn accept_connect(&mut self) {
        let State::Connecting { transaction, enhanced } = self.state else { return };
        self.state = State::Connected;
        self.replies.connect_preamble(WINDOW_BYTES);
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

    /// Rejects the connect request. Close the connection after the reply is sent.
    pub fn reject_connect(&mut self, description: &str) {
        let State::Connecting { transaction, .. } = self.state else { return };
        self.state = State::New;
        let info = status_object("error", "NetConnection.Connect.Rejected", description);
        self.replies.command(0, &["_error".into(), transaction.into(), Value::Null, info]);
    }

    /// Accepts the pending request to publish or play.
    pub fn accept(&mut self) {
        let State::Requested { stream, role, stream_id } = std::mem::replace(&mut self.state, State::Connected) else {
            return;
        };
        self.refusals = 0;
        self.replies.stream_begin(stream);
        match role {
            Role::Publish => {
                let description = format!("{stream_id} is now published.");
                self.replies.status(stream, "status", "NetStream.Publish.Start", &description);
            }
            Role::Play => {
                let description = format!("Playing {stream_id}.");
                self.replies.status(stream, "status", "NetStream.Play.Reset", &description);
                self.replies.status(stream, "status", "NetStream.Play.Start", &description);
            }
        }
        self.state = State::Active { stream, role };
    }

    /// Refuses the pending request to publish or play. The client may send another one. `code` is
    /// one of [`code`].
    pub fn refuse(&mut self, code: &str, description: &str) {
        let State::Requested { stream, .. } = self.state else { return };
        self.refusals += 1;
        self.state = State::Connected;
        self.replies.status(stream, "error", code, description);
    }

    /// Notifies a player that the stream ended. The client may request another one.
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

    /// Requests the client to reconnect, while the current connection continues (Enhanced RTMP v2,
    /// "Reconnect Request"). Returns false if the client does not support it.
    pub fn request_reconnect(&mut self, description: &str) -> bool {
        let supported = self.supports_reconnect && !matches!(self.state, State::New | State::Connecting { .. });
        if supported {
            self.replies.status(0, "status", "NetConnection.Connect.ReconnectRequest", description);
        }
        supported
    }

    /// Notifies the client that the server closes the connection. Close it after the reply is sent.
    pub fn close(&mut self, description: &str) {
        match self.state {
            State::Active { role: Role::Play, .. } => self.end_of_stream(),
            State::Active { stream, role: Role::Publish } => {
                self.replies.status(stream, "status", "NetStream.Unpublish.Success", description);
            }
            State::New | State::Connecting { .. } => return,
            State::Connected | State::Requested { .. } => {}
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
        let values = amf0::decode(payload).map_err(SessionError::InvalidCommand)?;
        let name = values.first().and_then(Value::as_str).ok_or(SessionError::MissingNameOrTransaction)?;
        let transaction = values.get(1).and_then(Value::as_number).ok_or(SessionError::MissingNameOrTransaction)?;
        let argument = values.get(3);
        match name {
            "connect" => self.on_connect(transaction, values.get(2)),
            "createStream" => self.on_create_stream(transaction),
            "publish" => self.on_stream_request(Role::Publish, stream, argument),
            "play" => self.on_stream_request(Role::Play, stream, argument),
            "deleteStream" => {
                let id = argument.and_then(Value::as_number).unwrap_or(0.0) as u32;
                Ok(self.on_stream_closed(id, true))
            }
            "closeStream" => Ok(self.on_stream_closed(stream, false)),
            "FCUnpublish" => Ok(None),
            "releaseStream" | "FCPublish" => {
                self.replies.command(0, &["_result".into(), transaction.into(), Value::Null, Value::Undefined]);
                Ok(None)
            }
            // _checkbw, getStreamLength, FCSubscribe, pause, receiveAudio, …: clients need no
            // reply.
            _ => Ok(None),
        }
    }

    fn on_connect(&mut self, transaction: f64, object: Option<&Value>) -> Result<Option<Event>, SessionError> {
        if !matches!(self.state, State::New) {
            return Err(SessionError::UnexpectedCommand("connect"));
        }
        let text = |name| object.and_then(|o| o.get(name)).and_then(Value::as_str);
        // Some clients omit `app` and send only `tcUrl`.
        let app = match text("app").filter(|app| !app.is_empty()) {
            Some(app) => app,
            None => text("tcUrl").and_then(|url| url.split_once("://")?.1.split_once('/')).map_or("", |(_, path)| path),
        };
        let (app, query) = split_query(app);
        let app = app.trim_matches('/').to_owned();
        let enhanced = object.is_some_and(|o| o.get("fourCcList").is_some() || o.get("capsEx").is_some());
        let caps = object.and_then(|o| o.get("capsEx")).and_then(Value::as_number).unwrap_or_default();
        self.supports_reconnect = caps as u32 & CAPS_EX_RECONNECT != 0;
        self.state = State::Connecting { transaction, enhanced };
        Ok(Some(Event::Connect { app, query }))
    }

    fn on_create_stream(&mut self, transaction: f64) -> Result<Option<Event>, SessionError> {
        if matches!(self.state, State::New | State::Connecting { .. }) {
            return Err(SessionError::UnexpectedCommand("createStream"));
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

    fn on_stream_request(
        &mut self,
        role: Role,
        stream: u32,
        name: Option<&Value>,
    ) -> Result<Option<Event>, SessionError> {
        let exists = stream.checked_sub(1).is_some_and(|bit| bit < MAX_STREAMS && self.streams >> bit & 1 == 1);
        if !matches!(self.state, State::Connected) || !exists {
            return Err(SessionError::UnexpectedCommand(if role == Role::Play { "play" } else { "publish" }));
        }
        if self.refusals >= MAX_REFUSALS {
            return Err(SessionError::TooManyRefusals);
        }
        let name = name.and_then(Value::as_str).unwrap_or_default();
        let (stream_id, query) = split_query(name);
        let stream_id = stream_id.to_owned();
        self.state = State::Requested { stream, role, stream_id: stream_id.clone() };
        match role {
            Role::Publish => Ok(Some(Event::Publish { stream_id, query })),
            Role::Play if stream != PLAY_STREAM => {
                self.refuse(code::PLAY_FAILED, "Play on the first message stream of the connection.");
                Ok(None)
            }
            Role::Play => Ok(Some(Event::Play { stream_id, query })),
        }
    }

    fn on_stream_closed(&mut self, id: u32, delete: bool) -> Option<Event> {
        if delete && (1..=MAX_STREAMS).contains(&id) {
            self.streams &= !(1 << (id - 1));
        }
        let (stream, publishes) = match self.state {
            State::Active { stream, role } => (stream, role == Role::Publish),
            // The request is withdrawn: a later answer is ignored.
            State::Requested { stream, .. } => (stream, false),
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

/// Parses the data message `@setDataFrame`, `onMetaData`, object, with or without the first value.
/// Returns `None` for any other message.
fn metadata(payload: &[u8]) -> Option<Event> {
    if payload.len() > MAX_COMMAND_BYTES {
        return None;
    }
    let mut values = amf0::decode(payload).ok()?.into_iter().peekable();
    values.next_if(|v| v.as_str() == Some("@setDataFrame"));
    values.next_if(|v| v.as_str() == Some("onMetaData"))?;
    values.next().map(Event::Metadata)
}

/// Removes the format byte of an AMF3 message. All known clients send 0, which means that AMF0
/// follows.
fn strip_format_byte(payload: &[u8]) -> &[u8] {
    match payload {
        [0, rest @ ..] => rest,
        all => all,
    }
}

/// Splits a name from its query. The query may contain a token, which must not appear in logs.
fn split_query(name: &str) -> (&str, Option<Query>) {
    match name.split_once('?') {
        Some((name, query)) => (name, Some(Query(query.to_owned()))),
        None => (name, None),
    }
}

/// Default acknowledgement window, as in other servers; the client may set another one.
const WINDOW_BYTES: u32 = 2_500_000;
/// Lower limit of the window that a client may set; bounds the number of acknowledgements.
const MIN_WINDOW_BYTES: u32 = 64 << 10;
/// The supported codecs in `fourCcList` (Enhanced RTMP v2).
const FOUR_CCS: [&str; 5] = ["avc1", "hvc1", "av01", "mp4a", "Opus"];
/// `capsEx` (Enhanced RTMP v2): reconnect requests and ModEx are supported, multitrack is not.
const CAPS_EX: f64 = 5.0;
const CAPS_EX_RECONNECT: u32 = 1;

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
