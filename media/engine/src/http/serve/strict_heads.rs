//! A byte stream that enforces two rules of HTTP/1.1 that hyper does not.
//!
//! - A line of a request head ends with CR LF. A bare LF (RFC 9112 §2.2 lets a recipient accept it,
//!   and proxies differ, which makes request smuggling possible) is replaced by NUL, which hyper's
//!   parser refuses with status 400. For this, reads end where a head ends.
//! - A connection is closed in stages if the peer may still be sending (RFC 9112 §9.6): the
//!   response to a request whose body was not read would be lost if unread bytes reset the
//!   connection.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Maximum time in which a closing connection discards what its peer still sends.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of bytes that a closing connection discards.
const MAX_LINGER_BYTES: usize = 4 << 20;
/// The body ends where hyper says, or with the connection.
const UNKNOWN_LENGTH: u64 = u64::MAX;

/// The number of bytes of the current request's body that have not been read. The service sets it
/// when hyper has parsed a head, before hyper reads on.
#[derive(Debug, Clone, Default)]
pub(crate) struct BodyLength(Arc<AtomicU64>);

impl BodyLength {
    /// Call with each request as soon as its head is parsed. Returns false if the end of its body
    /// is unknown (chunked transfer coding): its response must close the connection.
    pub(crate) fn on_request<B: Body>(&self, request: &hyper::Request<B>) -> bool {
        let length = request.body().size_hint().exact();
        self.0.store(length.unwrap_or(UNKNOWN_LENGTH), Ordering::Relaxed);
        length.is_some()
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, length: u64) {
        self.0.store(length, Ordering::Relaxed);
    }
}

/// Finds the end of a request head.
#[derive(Debug, Default)]
struct HeadScanner {
    /// A byte of the head has been read, other than empty lines before it.
    is_started: bool,
    previous: u8,
    line_bytes: usize,
}

impl HeadScanner {
    /// Reads bytes of a head. Returns the number of bytes up to its end and true, or of all bytes
    /// and false. A bare LF is replaced and ends the head, which is then invalid.
    fn scan(&mut self, bytes: &mut [u8]) -> (usize, bool) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            match *byte {
                b'\n' if self.previous != b'\r' => {
                    *byte = 0;
                    self.is_started = true;
                    return (at + 1, true);
                }
                b'\n' if self.line_bytes == 0 && self.is_started => return (at + 1, true),
                b'\n' => self.line_bytes = 0,
                b'\r' => {}
                _ => (self.is_started, self.line_bytes) = (true, self.line_bytes + 1),
            }
            self.previous = *byte;
        }
        (bytes.len(), false)
    }
}

/// The stream of one connection, between hyper and the socket.
#[derive(Debug)]
pub(crate) struct StrictHeads<T> {
    inner: T,
    body: BodyLength,
    /// `None` while a body is read.
    head: Option<HeadScanner>,
    /// Bytes after the end of a head, for later reads. At most one read of hyper.
    held: Vec<u8>,
    linger: Option<Linger>,
}

/// A connection whose sending side is closed, and whose peer may still be sending.
#[derive(Debug)]
struct Linger {
    timer: Pin<Box<Sleep>>,
    discarded_bytes: usize,
}

impl<T> StrictHeads<T> {
    pub(crate) fn new(inner: T, body: BodyLength) -> Self {
        Self { inner, body, head: Some(HeadScanner::default()), held: Vec::new(), linger: None }
    }

    /// Returns how many of the bytes may be passed on now.
    fn accept(&mut self, bytes: &mut [u8]) -> usize {
        if self.head.is_none() {
            match self.body.get() {
                0 => self.head = Some(HeadScanner::default()),
                UNKNOWN_LENGTH => return bytes.len(),
                remaining => {
                    let count = bytes.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
                    self.body.set(remaining - count as u64);
                    return count;
                }
            }
        }
        let Some(head) = &mut self.head else { return bytes.len() };
        let (count, is_end) = head.scan(bytes);
        if is_end {
            self.head = None;
            // Until the service knows better.
            self.body.set(UNKNOWN_LENGTH);
        }
        count
    }

    /// True if a request has been read in part.
    fn is_inside_request(&self) -> bool {
        !self.held.is_empty() || self.head.as_ref().map_or(self.body.get() > 0, |head| head.is_started)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for StrictHeads<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        if this.held.is_empty() {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            let count = this.accept(&mut buf.filled_mut()[start..]);
            this.held.extend_from_slice(&buf.filled()[start + count..]);
            buf.set_filled(start + count);
        } else {
            let count = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held[..count]);
            let count = this.accept(&mut buf.filled_mut()[start..]);
            this.held.drain(..count);
            buf.set_filled(start + count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> StrictHeads<T> {
    /// Discards what the peer sends until it closes the connection or a limit is reached.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(linger) = &mut self.linger else { return Poll::Ready(()) };
        while linger.discarded_bytes < MAX_LINGER_BYTES {
            let mut room = [MaybeUninit::uninit(); 16 << 10];
            let mut room = ReadBuf::uninit(&mut room);
            match Pin::new(&mut self.inner).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => linger.discarded_bytes += room.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return linger.timer.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for StrictHeads<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            if !this.is_inside_request() {
                return Poll::Ready(Ok(()));
            }
            this.linger = Some(Linger { timer: Box::pin(sleep(LINGER_TIMEOUT)), discarded_bytes: 0 });
        }
        this.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
#[path = "strict_heads_test.rs"]
mod tests;
