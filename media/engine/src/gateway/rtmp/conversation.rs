//! The conversation with one peer: bytes of the peer in, replies and a role out.
//!
//! ```text
//!   bytes --> handshake --> chunk reader --> session --> event
//!             event: request --> client --> idle -> pending -> publishing | playing --> replies
//!             event: media   --> the publisher
//! ```
//!
//! Must not read from the socket or write to it, except that it queues replies; must not wait.

use std::sync::Arc;
use std::task::{Context, Poll};

use headwater_wire::rtmp::handshake::Progress;
use headwater_wire::rtmp::session::Event;
use headwater_wire::rtmp::{ChunkReader, Handshake, Session};
use tokio::time::Instant;

use super::client::{Client, Outcome, Publishing, Refusal};
use super::close_reason::CloseReason;
use super::deadlines::{Activity, Deadlines, Expiry};
use super::link::Link;
use super::permission::HeldPermission;
use super::play::Player;
use super::publish::Publisher;
use super::reassembly::ReassemblyShare;
use super::role::{Role, RoleSummary};
use crate::hub::{Producer, Stream};
use crate::runtime::client_pool::PoolPlace;

pub(super) struct Conversation {
    client: Client,
    link: Arc<Link>,
    /// When the connection's task was last woken.
    now: Instant,
    deadlines: Deadlines,
    /// Set until the handshake is done.
    handshake: Option<Box<Handshake>>,
    reader: ChunkReader,
    reassembly: ReassemblyShare,
    /// Media behind a publish request that is not answered yet, at most one read. No more is read
    /// until then.
    held_input: Vec<u8>,
    session: Session,
    role: Role,
    /// Ends the role when the client would no longer be admitted to it.
    permission: Option<HeldPermission>,
    /// The role that ended last, for the closing log line.
    last_role: RoleSummary,
    /// Set while the queued replies are written before the socket is closed.
    closing: Option<CloseReason>,
}

impl Conversation {
    /// With a client that has connected at `now`.
    pub(super) fn new(client: Client, link: Arc<Link>, now: Instant) -> Self {
        let reassembly = client.shared().reassembly.share();
        Self {
            client,
            link,
            now,
            deadlines: Deadlines::new(now),
            handshake: Some(Box::default()),
            reader: ChunkReader::default(),
            reassembly,
            held_input: Vec::new(),
            session: Session::default(),
            role: Role::Idle,
            permission: None,
            last_role: RoleSummary::default(),
            closing: None,
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn role(&self) -> &Role {
        &self.role
    }

    pub(super) fn is_handshake_done(&self) -> bool {
        self.handshake.is_none()
    }

    /// True while only the queued replies are written before the socket is closed: no input may be
    /// processed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns the reason to close the connection once the queued replies are written.
    pub(super) fn take_closing(&mut self) -> Option<CloseReason> {
        self.closing.take()
    }

    /// Returns the bytes to send and removes them from the conversation.
    pub(super) fn take_replies(&mut self) -> Vec<u8> {
        self.session.take_replies()
    }

    /// The connection's task was woken at `now`.
    pub(super) fn on_wakeup(&mut self, now: Instant) {
        self.now = now;
    }

    /// When [`Conversation::on_timer`] must be called if nothing else wakes the connection.
    pub(super) fn deadline(&self) -> Instant {
        self.deadlines.deadline(self.now, self.activity(), self.link.lock().blocked_since())
    }

    /// True if the deadline may be earlier than before; false when called again.
    pub(super) fn take_deadline_changed(&mut self) -> bool {
        self.deadlines.take_changed()
    }

    /// Returns the reason to close the connection, if its deadline has passed.
    pub(super) fn on_timer(&mut self) -> Option<CloseReason> {
        let blocked_since = self.link.lock().blocked_since();
        match self.deadlines.on_timer(self.now, self.activity(), blocked_since)? {
            Expiry::Reconnect => {
                self.session.close(SHUTDOWN_MESSAGE);
                self.close(CloseReason::Draining);
                None
            }
            Expiry::Close => self.closing.take(),
            Expiry::Timeout(timeout) => Some(timeout.into()),
        }
    }

    /// Asks a client that supports it to reconnect, and closes any other with a message.
    pub(super) fn on_drain(&mut self) {
        if self.session.request_reconnect(SHUTDOWN_MESSAGE) {
            self.deadlines.on_reconnect_requested(self.now);
        } else {
            self.session.close(SHUTDOWN_MESSAGE);
            self.close(CloseReason::Draining);
        }
    }

    /// Processes the bytes of one read.
    pub(super) fn on_read(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let mut result = self.on_bytes(bytes);
        if !self.reassembly.set_bytes(self.reader.buffered_bytes()) {
            result = result.and(Err(CloseReason::TooManyUnfinishedBytes));
        }
        // Only media keeps a publisher's stream name reserved; pings do not.
        let media = self.reader.take_media_received();
        if media || !matches!(self.role, Role::Publishing(_)) {
            self.deadlines.on_received(self.now);
        }
        if media && self.deadlines.is_media_after_refusal(self.now) {
            self.session.close("This connection may not publish, and sends media.");
            self.close(CloseReason::MediaAfterRefusal);
        }
        result.inspect_err(|_| self.count_protocol_error())
    }

    /// True while media waits for the answer to a publish request: no more may be read.
    pub(super) fn holds_input(&self) -> bool {
        !self.held_input.is_empty()
    }

    /// Processes media that was held back, if its publish request is answered. Returns false if
    /// there was none to process.
    pub(super) fn resume_input(&mut self) -> Result<bool, CloseReason> {
        if !self.holds_input() || matches!(self.role, Role::Pending(_)) {
            return Ok(false);
        }
        let held_input = std::mem::take(&mut self.held_input);
        self.process_input(&held_input).inspect_err(|_| self.count_protocol_error())?;
        Ok(true)
    }

    /// Polls the pending request, if there is one; most are ready at once.
    pub(super) fn poll_request(&mut self, cx: &mut Context<'_>) {
        let Role::Pending(request) = &mut self.role else { return };
        let Poll::Ready(outcome) = request.poll(cx) else { return };
        self.role = Role::Idle;
        match outcome {
            Outcome::Publish(stream_id, result) => {
                self.reader.hold_media(false);
                match result {
                    Ok(Publishing { place, producer, permission }) => {
                        self.permission = permission.hold();
                        self.start_publishing(*producer, place);
                    }
                    Err(refusal) => self.refuse_publish(&stream_id, refusal),
                }
            }
            Outcome::Play(_, Ok((stream, permission))) => {
                self.permission = permission.hold();
                self.start_playing(stream);
            }
            Outcome::Play(stream_id, Err(refusal)) => self.refuse_play(&stream_id, refusal),
        }
    }

    /// Closes the connection if the client would no longer be admitted to its role.
    pub(super) fn poll_permission(&mut self, cx: &mut Context<'_>) {
        let Some(permission) = &mut self.permission else { return };
        let Poll::Ready(reason) = permission.poll_ended(cx) else { return };
        self.session.close(&reason.to_string());
        self.close(CloseReason::NotPermitted(reason));
    }

    /// The player has received the stream to its end.
    pub(super) fn on_end_of_stream(&mut self) {
        self.leave_role();
        self.session.end_of_stream();
    }

    /// Ends the role, and returns the client with the summary of the role that ended last.
    pub(super) fn finish(mut self) -> (Client, RoleSummary) {
        self.leave_role();
        (self.client, self.last_role)
    }

    fn activity(&self) -> Activity {
        if self.handshake.is_some() { Activity::Handshake } else { self.role.activity() }
    }

    fn count_protocol_error(&self) {
        self.client.shared().metrics.protocol_errors.inc();
    }

    fn on_bytes(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let Some(handshake) = &mut self.handshake else { return self.on_chunks(bytes) };
        let mut reply = Vec::new();
        let progress = handshake.on_bytes(bytes, &mut reply)?;
        self.link.lock().push(reply);
        if let Progress::Done(rest) = progress {
            self.handshake = None;
            log::debug!(peer:% = self.client.peer(); "rtmp handshake done");
            self.on_chunks(&rest)?;
        }
        Ok(())
    }

    fn on_chunks(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        self.session.on_received(bytes.len());
        self.process_input(bytes)
    }

    fn process_input(&mut self, mut bytes: &[u8]) -> Result<(), CloseReason> {
        while let Some(message) = self.reader.next(&mut bytes)? {
            if let Some(event) = self.session.on_message(message)? {
                self.on_event(event);
                if self.closing.is_some() {
                    return Ok(());
                }
            }
        }
        // Empty, unless the reader holds media back.
        self.held_input = bytes.to_vec();
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Media(message) => {
                if let Role::Publishing(publisher) = &mut self.role {
                    publisher.on_media(message);
                    if publisher.is_revoked() {
                        self.session.close("This stream is published on another node now.");
                        self.close(CloseReason::Revoked);
                    }
                }
            }
            Event::Metadata(metadata) => {
                if let Role::Publishing(publisher) = &self.role {
                    publisher.on_metadata(&metadata);
                }
            }
            Event::Connect { app, query } => {
                if self.client.enter_app(app, query) {
                    self.session.accept_connect();
                } else {
                    self.session.reject_connect(UNKNOWN_APP_MESSAGE);
                    self.close(CloseReason::UnknownApp);
                }
            }
            Event::Publish { stream_id, query } => match self.client.publish(&stream_id, query.as_ref()) {
                Ok(request) => {
                    self.role = Role::Pending(request);
                    self.reader.hold_media(true);
                }
                Err(refusal) => self.refuse_publish(&stream_id, refusal),
            },
            Event::Play { stream_id, query } => match self.client.play(&stream_id, query.as_ref()) {
                Ok(request) => self.role = Role::Pending(request),
                Err(refusal) => self.refuse_play(&stream_id, refusal),
            },
            Event::Ended => self.leave_role(),
        }
    }

    fn start_publishing(&mut self, producer: Producer, place: Option<PoolPlace>) {
        self.session.accept();
        self.reader.expect_media();
        self.deadlines.on_publish_accepted(self.now);
        let client = &self.client;
        let log_limiter = &client.shared().log_limiter;
        let publisher = Publisher::new(producer, place, client.log_level(), client.peer(), log_limiter);
        client.on_publish_started(publisher.name());
        self.role = Role::Publishing(Box::new(publisher));
    }

    fn refuse_publish(&mut self, stream_id: &str, refusal: Refusal) {
        self.deadlines.on_publish_refused(self.now);
        self.session.refuse(refusal.code, refusal.description());
        self.client.on_publish_refused(stream_id, refusal.reason);
    }

    fn start_playing(&mut self, stream: Arc<Stream>) {
        self.session.accept();
        // The replies must come before the first packet.
        self.link.lock().push(self.session.take_replies());
        let player = Player::start(&self.client.shared().fanouts, stream, &self.link);
        self.client.on_play_started(player.name());
        self.role = Role::Playing(player);
    }

    fn refuse_play(&mut self, stream_id: &str, refusal: Refusal) {
        self.session.refuse(refusal.code, refusal.description());
        self.client.on_play_refused(stream_id, refusal.reason);
    }

    fn leave_role(&mut self) {
        self.permission = None;
        let role = std::mem::replace(&mut self.role, Role::Idle);
        match &role {
            Role::Publishing(publisher) => {
                self.reader.expect_commands();
                self.client.on_publish_ended(publisher.name(), publisher.frames());
            }
            Role::Pending(_) => self.reader.hold_media(false),
            Role::Playing(_) | Role::Idle => {}
        }
        if let Some(summary) = role.summary() {
            self.last_role = summary;
            self.deadlines.on_role_ended(self.now);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.leave_role();
        self.held_input.clear();
        self.closing.get_or_insert(reason);
        self.deadlines.on_closing(self.now);
    }
}

const SHUTDOWN_MESSAGE: &str = "This node is going down; connect again.";
const UNKNOWN_APP_MESSAGE: &str = "There is no app of this name. The server URL ends with the app: rtmp://HOST/live";
