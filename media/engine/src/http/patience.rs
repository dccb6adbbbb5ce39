//! Bounds how long a connection waits for its peer: for a request head, for the next request, for room to write.
//!
//! Wraps the byte stream below hyper, so that one timer per connection serves all three and a busy connection never
//! touches it. The service says through [`Phase`] when a request is being answered. Reading a request's body has a
//! limit of its own, where the body is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// From the first byte of a request head to its last.
pub(crate) const HEAD: Duration = Duration::from_secs(10);
/// Between two requests. Longer than the 60 s of an AWS load balancer, which must be the first to hang up.
pub(crate) const IDLE: Duration = Duration::from_secs(75);
/// For a peer that does not take what it asked for.
pub(crate) const STALLED: Duration = Duration::from_secs(20);

/// Whether a request is being answered: odd if so. One side writes, the other looks, both on the same task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phase(Arc<AtomicU32>);

impl Phase {
    /// A request head has come, or its answer is ready to be written.
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A byte stream that gives up on a silent peer with [`io::ErrorKind::TimedOut`].
#[derive(Debug)]
pub(crate) struct Patient<T> {
    inner: T,
    phase: Phase,
    seen: u32,
    /// Before it, the head that has begun must be complete, or one must begin.
    read_by: Option<Instant>,
    in_head: bool,
    write_by: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    pub(crate) fn new(inner: T, phase: Phase) -> Self {
        // A new connection has as long for its first byte as for the rest of the head.
        let read_by = Some(Instant::now() + HEAD);
        Self { inner, seen: phase.get(), phase, read_by, in_head: false, write_by: None, timer: None }
    }

    fn note_read(&mut self) {
        self.note_phase();
        if !self.in_head && self.seen.is_multiple_of(2) {
            self.in_head = true;
            self.read_by = Some(Instant::now() + HEAD);
        }
    }

    fn note_phase(&mut self) {
        let phase = self.phase.get();
        if phase != self.seen {
            self.seen = phase;
            self.in_head = false;
            self.read_by = None;
        }
    }

    /// Ready once `by` has passed. The timer is moved only when it would fire too late; when it fires early it is
    /// moved then, so a busy connection rarely touches it.
    fn poll_deadline(&mut self, by: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(by)));
        if timer.deadline() > by {
            timer.as_mut().reset(by);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= by {
                return Poll::Ready(());
            }
            timer.as_mut().reset(by);
        }
        Poll::Pending
    }

    fn on_write(&mut self, result: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.write_by = None;
            if !self.in_head {
                self.read_by = None;
            }
            return result;
        }
        let by = *self.write_by.get_or_insert_with(|| Instant::now() + STALLED);
        ready!(self.poll_deadline(by, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            this.note_read();
            return Poll::Ready(result);
        }
        this.note_phase();
        if this.seen.is_multiple_of(2) {
            let by = *this.read_by.get_or_insert_with(|| Instant::now() + IDLE);
            ready!(this.poll_deadline(by, cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.on_write(result, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.on_write(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
