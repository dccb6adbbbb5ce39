//! The task of one RTMP connection: reads, writes and keeps its deadline until it is closed with a
//! reason.
//!
//! ```text
//!   socket --> conversation --> link (write queue) --> socket
//!   closing: queued bytes are written until a deadline --> closed
//! ```
//!
//! Must not know messages or requests.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use headwater_api::error::Chain;
use tokio::io::ReadBuf;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::close_reason::CloseReason;
use super::conversation::Conversation;
use super::link::{Io, Link};
use super::role::RoleSummary;
use super::shared::Shared;

pub(super) struct Connection {
    link: Arc<Link>,
    opened_at: Instant,
    received_bytes: u64,
    conversation: Conversation,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, io: Io, peer: SocketAddr) -> Self {
        let (link, opened_at) = (Link::new(io), Instant::now());
        let conversation = Conversation::new(Client::new(shared, peer), Arc::clone(&link), opened_at);
        Self { link, opened_at, received_bytes: 0, conversation }
    }

    /// Runs the connection until either side closes it.
    pub(super) async fn run(mut self, drain: CancellationToken) {
        log::debug!(peer:% = self.conversation.client().peer(); "rtmp connection opened");
        let mut timer = pin!(tokio::time::sleep_until(self.conversation.deadline()));
        let mut drain_cancelled = pin!(drain.cancelled());
        let mut draining = false;
        // True once the timer and the drain token have registered this task's waker. They are not
        // polled again before the deadline: input wakes this task far more often.
        let mut wakers_registered = false;
        let reason = poll_fn(|cx| {
            loop {
                let now = Instant::now();
                self.conversation.on_wakeup(now);
                if let Poll::Ready(reason) = self.poll(cx) {
                    return Poll::Ready(reason);
                }
                if self.conversation.take_deadline_changed() {
                    timer.as_mut().reset(self.conversation.deadline());
                    wakers_registered = false;
                }
                if wakers_registered && now < timer.deadline() && (draining || !drain.is_cancelled()) {
                    return Poll::Pending;
                }
                wakers_registered = false;
                if timer.as_mut().poll(cx).is_ready() {
                    if let Some(reason) = self.conversation.on_timer() {
                        return Poll::Ready(reason);
                    }
                } else if !draining && drain_cancelled.as_mut().poll(cx).is_ready() {
                    draining = true;
                    self.conversation.on_drain();
                } else {
                    wakers_registered = true;
                    return Poll::Pending;
                }
                timer.as_mut().reset(self.conversation.deadline());
            }
        })
        .await;
        self.finish(&reason);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            self.conversation.poll_request(cx);
            self.conversation.poll_permission(cx);
            match self.conversation.resume_input() {
                Ok(false) => {}
                Ok(true) => continue,
                Err(reason) => return Poll::Ready(reason),
            }
            let mut link = self.link.lock();
            link.push(self.conversation.take_replies());
            link.write(cx);
            if let Some(kind) = link.failure() {
                return Poll::Ready(CloseReason::SocketFailed(kind));
            }
            if link.has_finished_playing() {
                drop(link);
                self.conversation.on_end_of_stream();
                continue;
            }
            if link.is_flushed()
                && let Some(reason) = self.conversation.take_closing()
            {
                return Poll::Ready(reason);
            }
            drop(link);
            if self.conversation.holds_input() {
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
            if self.conversation.role().exchanges_commands() {
                link.set_quick_ack();
            }
            drop(link);
            if let Err(e) = read {
                return Poll::Ready(Err(CloseReason::SocketFailed(e.kind())));
            }
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(Err(CloseReason::PeerClosed));
            }
            if self.conversation.is_closing() {
                return Poll::Ready(Ok(()));
            }
            self.received_bytes += bytes.len() as u64;
            Poll::Ready(self.conversation.on_read(bytes))
        })
    }

    fn finish(self, reason: &CloseReason) {
        let handshake_done = self.conversation.is_handshake_done();
        let (client, last_role) = self.conversation.finish();
        let (sent_bytes, lost_packets) = self.link.lock().totals();
        let metrics = &client.shared().metrics;
        metrics.received_bytes.inc_by(self.received_bytes);
        metrics.sent_bytes.inc_by(sent_bytes);
        metrics.lost_packets.inc_by(lost_packets);
        let RoleSummary { stream, role, frames } = &last_role;
        // Health checks and port scans end before the handshake, many of them every minute.
        let level = if handshake_done { client.log_level() } else { log::Level::Debug };
        let peer = client.peer();
        if level > log::max_level() || !client.shared().log_limiter.admits("rtmp connection closed", peer.ip()) {
            return;
        }
        let elapsed_ms = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        log::log!(
            level,
            stream = stream.as_str(), role, peer:%, received_bytes = self.received_bytes, sent_bytes, frames, lost_packets,
            elapsed_ms, reason:% = Chain(reason);
            "rtmp connection closed"
        );
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.conversation.client().peer())
            .field("role", self.conversation.role())
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// Buffer of one read, shared by all connections of the thread: they keep none while waiting.
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 << 10]);
}
