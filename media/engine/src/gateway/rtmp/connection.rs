//! One RTMP connection: reads, replies, becomes a publisher or a player, and closes with a reason.
//!
//! ```text
//!   handshake --> session: idle <--> publishing
//!                           ^'------> playing
//!   any of them --> closing: queued bytes are written within CLOSE_TIMEOUT --> closed
//! ```

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::error::Chain;
use headwater_wire::rtmp::chunk::ChunkError;
use headwater_wire::rtmp::handshake::{NotRtmp, Progress};
use headwater_wire::rtmp::session::{Event, SessionError, code};
use headwater_wire::rtmp::{ChunkReader, Handshake, Query, Session};
use tokio::io::ReadBuf;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::link::{Io, Link};
use super::loopback::LoopbackTest;
use super::metrics::Metrics;
use super::play::{Fanouts, Player};
use super::publish::Publisher;
use super::reassembly::{ReassemblyBudget, ReassemblyShare};
use crate::access::{Access, AccessError, Credentials};
use crate::events::{Event as StreamEvent, EventBus, Protocol};
use crate::hub::{FindError, Hub, Producer, PublishError, Stream};
use crate::node::admission::Admission;
use crate::runtime::client_pool::{ClientPool, PoolError, PoolPlace};
use crate::runtime::log_limiter::LogLimiter;

/// State shared by all connections.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hub: Hub,
    pub(super) access: Access,
    pub(super) events: EventBus,
    pub(super) fanouts: Fanouts,
    pub(super) metrics: Metrics,
    pub(super) loopback: Arc<LoopbackTest>,
    pub(super) admission: Admission,
    /// The names of live streams, shared among clients.
    pub(super) stream_names: ClientPool,
    pub(super) reassembly: ReassemblyBudget,
    pub(super) log_limiter: Arc<LogLimiter>,
}

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloseReason {
    #[error("the peer closed the connection")]
    PeerClosed,
    #[error("the socket failed ({0})")]
    SocketFailed(io::ErrorKind),
    #[error("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    HandshakeTimeout,
    #[error("the publisher was silent for {} s", PUBLISHER_TIMEOUT.as_secs())]
    PublisherTimeout,
    #[error("the peer neither published nor played for {} s", IDLE_TIMEOUT.as_secs())]
    IdleTimeout,
    #[error("the peer has neither published nor played within {} s", ROLE_TIMEOUT.as_secs())]
    RoleTimeout,
    #[error("the peer did not read for {} s", WRITE_TIMEOUT.as_secs())]
    WriteTimeout,
    #[error("the app does not exist")]
    UnknownApp,
    #[error("this node is draining")]
    Draining,
    #[error("the peer continued to send media after its publish request was refused")]
    MediaAfterRefusal,
    #[error("the unfinished messages of all connections occupy too much memory, and this one has long ones")]
    TooManyUnfinishedBytes,
    #[error("another node owns the stream")]
    Revoked,
    #[error(transparent)]
    NotRtmp(#[from] NotRtmp),
    #[error("invalid chunk stream")]
    Chunk(#[from] ChunkError),
    #[error("invalid message sequence")]
    Session(#[from] SessionError),
}

pub(super) struct Connection {
    shared: Arc<Shared>,
    link: Arc<Link>,
    peer: SocketAddr,
    opened_at: Instant,
    /// When the task was last woken.
    now: Instant,
    /// Since when the peer has neither published nor played.
    idle_since: Instant,
    /// When bytes last arrived; for a publisher, when media bytes last arrived.
    last_received_at: Instant,
    received_bytes: u64,
    /// Set until the handshake is done.
    handshake: Option<Box<Handshake>>,
    reader: ChunkReader,
    reassembly: ReassemblyShare,
    /// Media behind a publish request that is not answered yet, at most one read. No more is read
    /// until then.
    held_input: Vec<u8>,
    session: Session,
    app: String,
    app_query: Option<Query>,
    /// The place of the name that the peer publishes, or has asked for. Before `role`, so that it
    /// is free when the stream has ended.
    stream_name: Option<PoolPlace>,
    role: Role,
    /// When a publish request was refused first, unless another one was accepted since.
    refused_at: Option<Instant>,
    /// The role that ended last, for the closing log line.
    last_role: RoleSummary,
    /// When a client that was asked to reconnect is closed at the latest.
    reconnect_deadline: Option<Instant>,
    closing: Option<(CloseReason, Instant)>,
    /// True if [`Connection::deadline`] may be earlier than the timer.
    deadline_changed: bool,
}

#[derive(Debug)]
enum Role {
    Idle,
    /// Waits for the hub, which may ask the cluster.
    Pending(PendingRequest),
    Publishing(Box<Publisher>),
    Playing(Player),
}

/// A publish or play request that waits for the hub, with its stream id for the log.
enum PendingRequest {
    Publish(String, Pin<Box<dyn Future<Output = Result<Producer, PublishError>> + Send>>),
    Play(String, Pin<Box<dyn Future<Output = Result<Arc<Stream>, FindError>> + Send>>),
}

impl fmt::Debug for PendingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Publish(id, _) | Self::Play(id, _)) = self;
        f.debug_tuple("PendingRequest").field(id).finish()
    }
}

/// Summary of a role that has ended.
#[derive(Debug, Default)]
struct RoleSummary {
    stream: String,
    role: &'static str,
    frames: u64,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, io: Io, peer: SocketAddr) -> Self {
        let now = Instant::now();
        let reassembly = shared.reassembly.share();
        Self {
            shared,
            link: Link::new(io),
            peer,
            opened_at: now,
            now,
            idle_since: now,
            last_received_at: now,
            received_bytes: 0,
            handshake: Some(Box::default()),
            reader: ChunkReader::default(),
            reassembly,
            held_input: Vec::new(),
            session: Session::default(),
            app: String::new(),
            app_query: None,
            role: Role::Idle,
            stream_name: None,
            refused_at: None,
            last_role: RoleSummary::default(),
            reconnect_deadline: None,
            closing: None,
            deadline_changed: false,
        }
    }

    /// Runs the connection until either side closes it.
    pub(super) async fn run(mut self, drain: CancellationToken) {
        log::debug!(peer:% = self.peer; "rtmp connection opened");
        let mut timer = pin!(tokio::time::sleep_until(self.deadline()));
        let mut drain_cancelled = pin!(drain.cancelled());
        let mut draining = false;
        // True once the timer and the drain token have registered this task's waker. They are not
        // polled again before the deadline: input wakes this task far more often.
        let mut wakers_registered = false;
        let reason = poll_fn(|cx| {
            loop {
                self.now = Instant::now();
                if let Poll::Ready(reason) = self.poll(cx) {
                    return Poll::Ready(reason);
                }
                if std::mem::take(&mut self.deadline_changed) {
                    timer.as_mut().reset(self.deadline());
                    wakers_registered = false;
                }
                if wakers_registered && self.now < timer.deadline() && (draining || !drain.is_cancelled()) {
                    return Poll::Pending;
                }
                wakers_registered = false;
                if timer.as_mut().poll(cx).is_ready() {
                    if let Some(reason) = self.on_timer(self.now) {
                        return Poll::Ready(reason);
                    }
                } else if !draining && drain_cancelled.as_mut().poll(cx).is_ready() {
                    draining = true;
                    self.on_drain();
                } else {
                    wakers_registered = true;
                    return Poll::Pending;
                }
                timer.as_mut().reset(self.deadline());
            }
        })
        .await;
        self.finish(&reason);
    }

    /// Asks a client that supports it to reconnect, and closes any other with a message.
    fn on_drain(&mut self) {
        if self.session.request_reconnect(SHUTDOWN_MESSAGE) {
            self.reconnect_deadline = Some(self.now + RECONNECT_TIMEOUT);
        } else {
            self.session.close(SHUTDOWN_MESSAGE);
            self.close(CloseReason::Draining);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            self.poll_pending_request(cx);
            if !self.held_input.is_empty() && !matches!(self.role, Role::Pending(_)) {
                let held_input = std::mem::take(&mut self.held_input);
                if let Err(reason) = self.process_input(&held_input) {
                    self.shared.metrics.protocol_errors.inc();
                    return Poll::Ready(reason);
                }
                continue;
            }
            let mut link = self.link.lock();
            link.push(self.session.take_replies());
            link.write(cx);
            if let Some(kind) = link.failure() {
                return Poll::Ready(CloseReason::SocketFailed(kind));
            }
            if link.has_finished_playing() {
                drop(link);
                self.leave_role();
                self.session.end_of_stream();
                continue;
            }
            if link.is_flushed()
                && let Some((reason, _)) = self.closing.take()
            {
                return Poll::Ready(reason);
            }
            drop(link);
            if !self.held_input.is_empty() {
                // The pending request wakes this task.
                return Poll::Pending;
            }
            if let Err(reason) = ready!(self.poll_read(cx)) {
                return Poll::Ready(reason);
            }
        }
    }

    /// Reads once and processes the bytes.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        READ_BUFFER.with_borrow_mut(|storage| {
            let mut buffer = ReadBuf::new(storage);
            let mut link = self.link.lock();
            let read = ready!(link.poll_read(cx, &mut buffer));
            let exchanges_commands = match &self.role {
                Role::Idle | Role::Pending(_) => true,
                Role::Publishing(publisher) => publisher.frames() == 0,
                Role::Playing(_) => false,
            };
            if exchanges_commands {
                link.set_quick_ack();
            }
            drop(link);
            if let Err(e) = read {
                return Poll::Ready(Err(CloseReason::SocketFailed(e.kind())));
            }
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(CloseReason::PeerClosed));
            }
            if self.closing.is_some() {
                // Input is ignored while closing: only the queued replies must still be written.
                return Poll::Ready(Ok(()));
            }
            self.received_bytes += buffer.filled().len() as u64;
            let mut result = self.on_bytes(buffer.filled());
            if !self.reassembly.set_bytes(self.reader.buffered_bytes()) {
                result = result.and(Err(CloseReason::TooManyUnfinishedBytes));
            }
            // Only media keeps a publisher's stream name reserved; pings do not.
            let media = self.reader.take_media_received();
            if media || !matches!(self.role, Role::Publishing(_)) {
                self.last_received_at = self.now;
            }
            if media && self.refused_at.is_some_and(|at| self.now >= at + REFUSED_MEDIA_TIMEOUT) {
                self.session.close("This connection may not publish, and sends media.");
                self.close(CloseReason::MediaAfterRefusal);
            }
            Poll::Ready(result.inspect_err(|_| {
                self.shared.metrics.protocol_errors.inc();
            }))
        })
    }

    fn on_bytes(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let Some(handshake) = &mut self.handshake else { return self.on_chunks(bytes) };
        let mut reply = Vec::new();
        let progress = handshake.on_bytes(bytes, &mut reply)?;
        self.link.lock().push(reply);
        if let Progress::Done(rest) = progress {
            self.handshake = None;
            log::debug!(peer:% = self.peer; "rtmp handshake done");
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
            Event::Connect { app, query }
                if self.shared.loopback.accepts_app(&app) || self.shared.access.check_app(&app).is_ok() =>
            {
                self.app = app;
                self.app_query = query;
                self.session.accept_connect();
            }
            Event::Connect { app, .. } => {
                if self.shared.log_limiter.admits("unknown app refused", self.peer.ip()) {
                    log::info!(peer:% = self.peer, app = printable(&app).as_str(); "unknown app refused");
                }
                self.session
                    .reject_connect("There is no app of this name. The server URL ends with the app: rtmp://HOST/live");
                self.close(CloseReason::UnknownApp);
            }
            Event::Publish { stream_id, query } => self.on_publish(&stream_id, query.as_ref()),
            Event::Play { stream_id, query } => self.on_play(&stream_id, query.as_ref()),
            Event::Ended => self.leave_role(),
        }
    }

    fn on_publish(&mut self, stream_id: &str, query: Option<&Query>) {
        match StreamName::new(&self.app, stream_id) {
            Ok(name) => {
                if let Err(refusal) = self.check_access(query, |access, who| access.check_publish(&name, who)) {
                    self.on_published(stream_id, Err((code::DENIED, refusal.to_string())));
                    return;
                }
                if let Err(refusal) = self.shared.admission.check_publisher() {
                    self.on_published(stream_id, Err((code::DENIED, refusal.to_string())));
                    return;
                }
                // The loopback test has a hub of its own, whose streams are not counted.
                if self.app != self.shared.loopback.app {
                    match self.shared.stream_names.take(self.peer.ip()) {
                        Ok(place) => self.stream_name = Some(place),
                        Err(e) => return self.on_published(stream_id, Err((code::DENIED, too_many_streams(e)))),
                    }
                }
                let hub = self.hub().clone();
                let publishing = Box::pin(async move { hub.publish_owned(&name, "rtmp").await });
                self.role = Role::Pending(PendingRequest::Publish(stream_id.to_owned(), publishing));
                self.reader.hold_media(true);
            }
            Err(e) => self.on_published(stream_id, Err((code::BAD_NAME, e.to_string()))),
        }
    }

    /// Calls `check` with the client's credentials. The app of the loopback test is exempt: no
    /// other client can guess its name.
    fn check_access(
        &self,
        query: Option<&Query>,
        check: impl FnOnce(&Access, &Credentials<'_>) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        if self.app == self.shared.loopback.app {
            return Ok(());
        }
        let credentials = Credentials::from_query(query.map(Query::as_str))
            .with_app_query(self.app_query.as_ref().map(Query::as_str));
        check(&self.shared.access, &credentials)
    }

    /// Polls the pending request; most are ready at once.
    fn poll_pending_request(&mut self, cx: &mut Context<'_>) {
        let Role::Pending(request) = &mut self.role else { return };
        match request {
            PendingRequest::Publish(stream_id, publishing) => {
                let Poll::Ready(result) = publishing.as_mut().poll(cx) else { return };
                let stream_id = std::mem::take(stream_id);
                self.role = Role::Idle;
                self.reader.hold_media(false);
                let result = result.map_err(|e| match e {
                    PublishError::AlreadyLive(_) | PublishError::LiveOnOtherNode { .. } => {
                        (code::BAD_NAME, e.to_string())
                    }
                    PublishError::TooManyStreams { .. } => (code::DENIED, e.to_string()),
                });
                self.on_published(&stream_id, result);
            }
            PendingRequest::Play(stream_id, finding) => {
                let Poll::Ready(found) = finding.as_mut().poll(cx) else { return };
                let stream_id = std::mem::take(stream_id);
                self.role = Role::Idle;
                self.on_found(&stream_id, found);
            }
        }
    }

    fn on_published(&mut self, stream_id: &str, result: Result<Producer, (&'static str, String)>) {
        match result {
            Ok(producer) => {
                self.session.accept();
                self.refused_at = None;
                self.reader.expect_media();
                self.last_received_at = self.now;
                self.deadline_changed = true;
                let publisher =
                    Box::new(Publisher::new(producer, self.log_level(), self.peer, &self.shared.log_limiter));
                let (stream, peer) = (publisher.name().to_owned(), self.peer);
                self.emit(StreamEvent::PublishStarted { stream, protocol: Protocol::Rtmp, peer });
                self.role = Role::Publishing(publisher);
            }
            Err((code, reason)) => {
                self.stream_name = None;
                self.refused_at.get_or_insert(self.now);
                self.shared.metrics.publish_refused.inc();
                self.session.refuse(code, &reason);
                self.emit(StreamEvent::PublishRefused {
                    app: printable(&self.app),
                    stream_id: printable(stream_id),
                    protocol: Protocol::Rtmp,
                    peer: self.peer,
                    reason,
                });
            }
        }
    }

    fn on_play(&mut self, stream_id: &str, query: Option<&Query>) {
        match StreamName::new(&self.app, stream_id) {
            Ok(name) => {
                let access = self.check_access(query, |access, who| access.check_play(&name, who));
                let admission = self.shared.admission.check_viewer();
                if let Err(refusal) = access.map_err(|e| e.to_string()).and(admission.map_err(|e| e.to_string())) {
                    self.session.refuse(code::PLAY_FAILED, &refusal);
                    self.on_play_refused(stream_id, refusal);
                    return;
                }
                let hub = self.hub().clone();
                let finding = Box::pin(async move { hub.find(&name).await });
                self.role = Role::Pending(PendingRequest::Play(stream_id.to_owned(), finding));
            }
            Err(_) => self.on_found(stream_id, Err(FindError::NotPublished)),
        }
    }

    fn on_found(&mut self, stream_id: &str, found: Result<Arc<Stream>, FindError>) {
        let stream = match found {
            Ok(stream) => stream,
            Err(error) => {
                self.on_play_refused(stream_id, error.to_string());
                match error {
                    FindError::NotPublished => {
                        self.session.refuse(code::STREAM_NOT_FOUND, "No stream of this name is being published.");
                    }
                    FindError::AtCapacity | FindError::Unreachable | FindError::TooManySearches => {
                        self.session.refuse(code::PLAY_FAILED, &error.to_string());
                    }
                }
                return;
            }
        };
        self.session.accept();
        // The replies must come before the first packet.
        self.link.lock().push(self.session.take_replies());
        let player = Player::start(&self.shared.fanouts, stream, &self.link);
        self.emit(StreamEvent::ViewerJoined {
            stream: player.name().to_owned(),
            protocol: Protocol::Rtmp,
            peer: Some(self.peer),
            session: None,
            setup: None,
        });
        self.role = Role::Playing(player);
    }

    /// The hub of this connection's app.
    fn hub(&self) -> &Hub {
        if self.app == self.shared.loopback.app { &self.shared.loopback.hub } else { &self.shared.hub }
    }

    fn on_play_refused(&self, stream_id: &str, reason: String) {
        self.shared.metrics.play_refused.inc();
        self.emit(StreamEvent::PlayRefused {
            app: printable(&self.app),
            stream_id: printable(stream_id),
            protocol: Protocol::Rtmp,
            peer: self.peer,
            reason,
        });
    }

    /// Reports an event, unless this connection is the loopback test.
    fn emit(&self, event: StreamEvent) {
        if self.app == self.shared.loopback.app {
            log::debug!(event:?; "event of the loopback test");
        } else {
            self.shared.events.emit(event);
        }
    }

    /// Level of this connection's log lines: the loopback test logs at debug level.
    fn log_level(&self) -> log::Level {
        if self.app == self.shared.loopback.app { log::Level::Debug } else { log::Level::Info }
    }

    fn leave_role(&mut self) {
        self.stream_name = None;
        self.last_role = match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Publishing(publisher) => {
                self.reader.expect_commands();
                self.emit(StreamEvent::PublishEnded {
                    stream: publisher.name().to_owned(),
                    protocol: Protocol::Rtmp,
                    peer: self.peer,
                    frames: publisher.frames(),
                });
                RoleSummary { stream: publisher.name().to_owned(), role: "publisher", frames: publisher.frames() }
            }
            Role::Playing(player) => RoleSummary { stream: player.name().to_owned(), role: "player", frames: 0 },
            Role::Pending(_) => {
                self.reader.hold_media(false);
                return;
            }
            Role::Idle => return,
        };
        self.idle_since = self.now;
    }

    fn close(&mut self, reason: CloseReason) {
        self.leave_role();
        self.held_input.clear();
        self.closing.get_or_insert((reason, self.now));
        self.deadline_changed = true;
    }

    /// When the timer must fire if nothing else wakes the connection.
    fn deadline(&self) -> Instant {
        if let Some((_, since)) = self.closing {
            return since + CLOSE_TIMEOUT;
        }
        if self.handshake.is_some() {
            return self.opened_at + HANDSHAKE_TIMEOUT;
        }
        if let Some(deadline) = self.reconnect_deadline {
            return deadline;
        }
        let blocked = self.link.lock().blocked_since();
        match (&self.role, blocked) {
            (_, Some(since)) => since + WRITE_TIMEOUT,
            (Role::Publishing(_), None) => self.last_received_at + PUBLISHER_TIMEOUT,
            (Role::Idle | Role::Pending(_), None) => {
                (self.last_received_at + IDLE_TIMEOUT).min(self.idle_since + ROLE_TIMEOUT)
            }
            // A player whose socket blocks from now on is detected within twice the timeout.
            (Role::Playing(_), None) => self.now + WRITE_TIMEOUT,
        }
    }

    fn on_timer(&mut self, now: Instant) -> Option<CloseReason> {
        if self.reconnect_deadline.is_some_and(|by| now >= by) {
            self.reconnect_deadline = None;
            self.session.close(SHUTDOWN_MESSAGE);
            self.close(CloseReason::Draining);
            return None;
        }
        if now < self.deadline()
            || (matches!(self.role, Role::Playing(_)) && self.link.lock().blocked_since().is_none())
        {
            return None;
        }
        if let Some((reason, _)) = self.closing.take() {
            return Some(reason);
        }
        if self.handshake.is_some() {
            return Some(CloseReason::HandshakeTimeout);
        }
        if self.link.lock().blocked_since().is_some() {
            return Some(CloseReason::WriteTimeout);
        }
        if now > self.deadline() + MAX_TIMER_DELAY {
            // This process was stalled: bytes that the peer sent meanwhile may still be unread.
            self.idle_since += now - self.deadline();
            self.last_received_at = now;
            return None;
        }
        Some(match self.role {
            Role::Publishing(_) => CloseReason::PublisherTimeout,
            _ if now >= self.idle_since + ROLE_TIMEOUT => CloseReason::RoleTimeout,
            _ => CloseReason::IdleTimeout,
        })
    }

    fn finish(mut self, reason: &CloseReason) {
        self.leave_role();
        let (sent_bytes, lost_packets) = self.link.lock().totals();
        let metrics = &self.shared.metrics;
        metrics.received_bytes.inc_by(self.received_bytes);
        metrics.sent_bytes.inc_by(sent_bytes);
        metrics.lost_packets.inc_by(lost_packets);
        let RoleSummary { stream, role, frames } = &self.last_role;
        // Health checks and port scans end before the handshake, many of them every minute.
        let level = if self.handshake.is_some() { log::Level::Debug } else { self.log_level() };
        if level > log::max_level() || !self.shared.log_limiter.admits("rtmp connection closed", self.peer.ip()) {
            return;
        }
        let elapsed_ms = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        log::log!(
            level,
            stream = stream.as_str(), role, peer:% = self.peer, received_bytes = self.received_bytes, sent_bytes, frames, lost_packets,
            elapsed_ms, reason:% = Chain(reason);
            "rtmp connection closed"
        );
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).field("role", &self.role).finish_non_exhaustive()
    }
}

fn too_many_streams(error: PoolError) -> String {
    match error {
        PoolError::Full { places } => PublishError::TooManyStreams { limit: places }.to_string(),
        PoolError::ShareUsed { share, .. } => format!("this address already publishes its share of {share} streams"),
    }
}

/// Makes a name from an unauthenticated peer safe to log: at most 128 printable ASCII characters.
fn printable(name: &str) -> String {
    name.chars().take(128).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

thread_local! {
    /// Buffer of one read, shared by all connections of the thread: they keep none while waiting.
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 << 10]);
}

/// From accepting the connection to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// If the timer fires later than this, the process was stalled and no timeout is applied.
const MAX_TIMER_DELAY: Duration = Duration::from_secs(1);
/// A publisher that sends no media for this duration is closed, which frees its stream name.
const PUBLISHER_TIMEOUT: Duration = Duration::from_secs(10);
/// For a peer that is connected, sends nothing, and neither publishes nor plays.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// For a peer to become a publisher or a player, whatever else it sends: pings do not keep a
/// connection open.
const ROLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A client whose publish request was refused, and that still sends media after this duration, does
/// not read its replies.
const REFUSED_MEDIA_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection is closed if a write makes no progress for this duration.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a client to act on a reconnect request.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const SHUTDOWN_MESSAGE: &str = "This node is going down; connect again.";
/// For writing the queued replies before the socket is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
