//! One socket and its write queue.
//!
//! Two tasks use it, each briefly and never across an `await`: the connection's task reads, and
//! continues to write after the socket was full; a fan-out task writes packets of the stream. The
//! queue is bounded: a player stores a number into the stream's ring instead of frames, and loses
//! the packets that the ring evicts.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::ring::Packet;
use super::shared_ring::SharedRing;

/// A socket with or without TLS.
#[derive(Debug)]
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket shared by its connection's task and a fan-out.
#[derive(Debug)]
pub(super) struct Link(Mutex<LinkState>);

#[derive(Debug)]
pub(super) struct LinkState {
    io: Io,
    /// At most [`MAX_QUEUE_ENTRIES`] packets and replies, else the link fails. The first one may be
    /// partly written.
    queue: VecDeque<Bytes>,
    /// TLS buffers bytes that are not written to the socket yet.
    unflushed: bool,
    position: Option<Position>,
    /// Since when the socket has accepted no bytes.
    blocked_since: Option<Instant>,
    failure: Option<io::ErrorKind>,
    /// Wakes the connection's task.
    connection_waker: Option<Waker>,
    sent_bytes: u64,
    lost_packets: u64,
}

/// A player's position in a stream.
#[derive(Debug)]
struct Position {
    ring: Arc<SharedRing>,
    /// Number of the next packet.
    next: u64,
    /// Version of the decoder configurations that were sent; 0 if none.
    version: u32,
    wait_key: bool,
}

impl Link {
    pub(super) fn new(io: Io) -> Arc<Self> {
        Arc::new(Self(Mutex::new(LinkState {
            io,
            queue: VecDeque::new(),
            unflushed: false,
            position: None,
            blocked_since: None,
            failure: None,
            connection_waker: None,
            sent_bytes: 0,
            lost_packets: 0,
        })))
    }

    /// Locks the link; hold it briefly, never across an `await`.
    pub(super) fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkState {
    /// Reads available bytes, or registers the task's waker if there are none.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &self.connection_waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.connection_waker = Some(cx.waker().clone()),
        }
        if let Some(kind) = self.failure {
            return Poll::Ready(Err(kind.into()));
        }
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buffer),
        }
    }

    /// Makes the kernel acknowledge received bytes at once. Not permanent (see `tcp(7)`).
    ///
    /// Clients such as ffmpeg leave Nagle's algorithm on and send a request in two writes: the
    /// second waits for the acknowledgement of the first, which the kernel would delay for 40 ms,
    /// three times per join.
    pub(super) fn set_quick_ack(&self) {
        let socket = match &self.io {
            Io::Plain(io) => io,
            Io::Tls(io) => io.get_ref().0,
        };
        // If the option is not available, the join is only slower.
        let _ = socket2::SockRef::from(socket).set_tcp_quickack(true);
    }

    /// Appends bytes to the queue. They must be whole messages.
    pub(super) fn push(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return;
        }
        if self.queue.len() >= MAX_QUEUE_ENTRIES {
            self.fail(io::ErrorKind::TimedOut);
        } else {
            self.queue.push_back(bytes);
        }
    }

    /// Writes until the queue is empty or the socket is full; registers the waker of `cx`.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) {
        while self.failure.is_none() {
            if self.queue.is_empty() && !self.refill() {
                if self.unflushed {
                    match self.io.poll_flush(cx) {
                        Poll::Ready(Ok(())) => self.unflushed = false,
                        Poll::Ready(Err(e)) => self.fail(e.kind()),
                        Poll::Pending => {
                            self.blocked_since.get_or_insert_with(Instant::now);
                            return;
                        }
                    }
                }
                self.blocked_since = None;
                return;
            }
            match self.io.poll_write(cx, &self.queue) {
                Poll::Ready(Ok(0)) => self.fail(io::ErrorKind::WriteZero),
                Poll::Ready(Ok(taken)) => {
                    self.unflushed = matches!(self.io, Io::Tls(_));
                    self.advance(taken);
                }
                Poll::Ready(Err(e)) => self.fail(e.kind()),
                Poll::Pending => {
                    self.blocked_since.get_or_insert_with(Instant::now);
                    return;
                }
            }
        }
    }

    /// Writes new packets of the stream; `first` is the number of the first one. Called by the
    /// fan-out.
    ///
    /// Returns false if this link no longer plays that stream.
    pub(super) fn on_packets(&mut self, ring: &Arc<SharedRing>, first: u64, packets: &[Packet]) -> bool {
        let Some(position) = self.position.as_mut().filter(|p| Arc::ptr_eq(&p.ring, ring)) else { return false };
        if self.blocked_since.is_some() || self.failure.is_some() {
            return true;
        }
        // The usual case, without locking the ring again: up to date, empty queue, one packet.
        if let [packet] = packets
            && let Io::Plain(io) = &self.io
            && self.queue.is_empty()
            && !position.wait_key
            && position.next == first
            && position.version > 0
        {
            position.next += 1;
            position.version = packet.version;
            match io.try_write(&packet.bytes) {
                Ok(taken) if taken == packet.bytes.len() => {
                    self.sent_bytes += taken as u64;
                    return true;
                }
                Ok(taken) => {
                    self.sent_bytes += taken as u64;
                    self.queue.push_back(packet.bytes.slice(taken..));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.queue.push_back(packet.bytes.clone()),
                Err(e) => self.fail(e.kind()),
            }
        }
        self.write(&mut Context::from_waker(Waker::noop()));
        if self.blocked_since.is_some() || self.failure.is_some() {
            self.wake();
        }
        true
    }

    /// Starts to play a stream. The next write sends the packets that the ring holds.
    pub(super) fn play(&mut self, ring: Arc<SharedRing>) {
        let next = ring.lock().start();
        self.position = Some(Position { ring, next, version: 0, wait_key: true });
    }

    /// Stops playing. Queued bytes are still written.
    pub(super) fn stop_playing(&mut self) {
        self.position = None;
    }

    /// True once the stream has ended and all of it was written.
    pub(super) fn has_finished_playing(&self) -> bool {
        self.queue.is_empty()
            && self.position.as_ref().is_some_and(|p| {
                let ring = p.ring.lock();
                ring.is_ended() && p.next >= ring.end()
            })
    }

    /// True if everything queued has been written.
    pub(super) fn is_flushed(&self) -> bool {
        self.queue.is_empty() && !self.unflushed
    }

    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    pub(super) fn failure(&self) -> Option<io::ErrorKind> {
        self.failure
    }

    /// Bytes written and packets skipped.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.sent_bytes, self.lost_packets)
    }

    /// Schedules the connection's task.
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.connection_waker.take() {
            waker.wake();
        }
    }

    fn fail(&mut self, kind: io::ErrorKind) {
        self.failure.get_or_insert(kind);
        self.queue.clear();
        self.position = None;
    }

    /// Moves the next packets from the ring to the queue; false if there are none.
    fn refill(&mut self) -> bool {
        let Some(position) = &mut self.position else { return false };
        let ring = position.ring.lock();
        let Some((header, version)) = ring.header() else { return false };
        for _ in 0..REFILL_PACKETS {
            let packet = match ring.get(position.next) {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(_) => {
                    let start = ring.start();
                    self.lost_packets += start.saturating_sub(position.next);
                    position.next = start;
                    position.wait_key = true;
                    continue;
                }
            };
            position.next += 1;
            if position.wait_key {
                if !packet.key {
                    self.lost_packets += 1;
                    continue;
                }
                position.wait_key = false;
                if position.version != version {
                    self.queue.push_back(header.clone());
                }
            }
            position.version = packet.version;
            self.queue.push_back(packet.bytes.clone());
        }
        !self.queue.is_empty()
    }

    fn advance(&mut self, mut taken: usize) {
        self.sent_bytes += taken as u64;
        self.blocked_since = None;
        while let Some(front) = self.queue.front_mut() {
            if taken < front.len() {
                front.advance(taken);
                return;
            }
            taken -= front.len();
            self.queue.pop_front();
        }
        // Frees the capacity that the first GOP needed.
        self.queue = VecDeque::new();
    }
}

impl Io {
    fn poll_write(&mut self, cx: &mut Context<'_>, queue: &VecDeque<Bytes>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); REFILL_PACKETS + 2];
        let count = queue.len().min(slices.len());
        for (slice, bytes) in slices.iter_mut().zip(queue) {
            *slice = IoSlice::new(bytes);
        }
        match self {
            // Not `poll_write`: it counts against the task's budget, and a fan-out writes to many
            // sockets in one poll.
            Self::Plain(io) => loop {
                match io.try_write_vectored(&slices[..count]) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => match io.poll_write_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                        Poll::Pending => return Poll::Pending,
                    },
                    result => return Poll::Ready(result),
                }
            },
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, &slices[..count]),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }
}

/// Packets moved from the ring to the queue at once. Their bytes are shared, but queued packets can
/// no longer be skipped.
const REFILL_PACKETS: usize = 32;
/// Packets and replies in the queue.
const MAX_QUEUE_ENTRIES: usize = 128;
