//! Timeouts of a connection: for a request head, for the next request, and for a write.
//!
//! Wraps the byte stream below the HTTP implementation. One timer per connection serves all three
//! timeouts, and a busy connection hardly ever touches it. The service reports through
//! [`RequestPhase`] when a request is being answered. Reading a request body has its own timeout,
//! in `body`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Time from the first byte of a request head to its last.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two requests. Longer than the idle timeout of an AWS load balancer (60 s), which
/// must be the side that closes first.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Time without progress of a write.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// A counter that is odd while a request is being answered. Writer and reader run on the same task.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestPhase(Arc<AtomicU32>);

impl RequestPhase {
    /// Call when a request head is complete, and again when its response is ready to be written.
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A byte stream that fails with [`io::ErrorKind::TimedOut`] when its peer exceeds a timeout.
#[derive(Debug)]
pub(crate) struct TimeoutStream<T> {
    inner: T,
    phase: RequestPhase,
    last_phase: u32,
    /// Deadline for the rest of the current request head, or for the start of the next.
    read_deadline: Option<Instant>,
    in_head: bool,
    write_deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that were read and pushed back; returned by the next reads.
    pushed_back: Vec<u8>,
}

impl<T> TimeoutStream<T> {
    pub(crate) fn new(inner: T, phase: RequestPhase) -> Self {
        // On a new connection the first byte has the same timeout as the rest of the head.
        let read_deadline = Some(Instant::now() + HEAD_TIMEOUT);
        Self {
            inner,
            last_phase: phase.get(),
            phase,
            read_deadline,
            in_head: false,
            write_deadline: None,
            timer: None,
            pushed_back: Vec::new(),
        }
    }

    /// Pushes back bytes so that they are read again. Does not extend the current timeout.
    pub(crate) fn push_back(&mut self, bytes: Vec<u8>) {
        self.pushed_back = bytes;
    }

    fn on_read(&mut self) {
        self.sync_phase();
        if !self.in_head && self.last_phase.is_multiple_of(2) {
            self.in_head = true;
            self.read_deadline = Some(Instant::now() + HEAD_TIMEOUT);
        }
    }

    fn sync_phase(&mut self) {
        let phase = self.phase.get();
        if phase != self.last_phase {
            self.last_phase = phase;
            self.in_head = false;
            self.read_deadline = None;
        }
    }

    /// Ready once `by` has passed. Resets the timer only if it would fire too late, or when it has
    /// fired early, so that a busy connection rarely touches it.
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

    fn on_write<R>(&mut self, result: Poll<io::Result<R>>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.write_deadline = None;
            // The idle timeout starts after the response. Set it here, because the stream may not
            // be polled for reading again before the timer fires.
            if let Some(by) = self.read_deadline.as_mut().filter(|_| !self.in_head) {
                *by = Instant::now() + IDLE_TIMEOUT;
            }
            return result;
        }
        let by = *self.write_deadline.get_or_insert_with(|| Instant::now() + WRITE_TIMEOUT);
        ready!(self.poll_deadline(by, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TimeoutStream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.pushed_back.is_empty() {
            let count = this.pushed_back.len().min(buf.remaining());
            buf.put_slice(&this.pushed_back[..count]);
            this.pushed_back.drain(..count);
            if this.pushed_back.is_empty() {
                this.pushed_back = Vec::new();
            }
            this.on_read();
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            this.on_read();
            return Poll::Ready(result);
        }
        this.sync_phase();
        if this.last_phase.is_multiple_of(2) {
            let by = *this.read_deadline.get_or_insert_with(|| Instant::now() + IDLE_TIMEOUT);
            ready!(this.poll_deadline(by, cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TimeoutStream<T> {
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
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_flush(cx);
        // hyper flushes on every poll: only a flush that had to wait is progress of the peer.
        if result.is_ready() && this.write_deadline.is_none() { result } else { this.on_write(result, cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.on_write(result, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Accepts all bytes but never flushes them, like TLS on a full socket. Never readable.
    struct StuckStream;

    impl AsyncRead for StuckStream {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for StuckStream {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    async fn check<T>(what: &str, limit: Duration, waiting: impl Future<Output = io::Result<T>>) {
        let start = Instant::now();
        let ended = tokio::time::timeout(2 * limit, waiting).await;
        assert_eq!(ended.expect(what).err().map(|e| e.kind()), Some(io::ErrorKind::TimedOut), "{what}");
        let took = start.elapsed();
        assert!((limit..limit + Duration::from_millis(2)).contains(&took), "{what}: {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn write_without_progress_times_out_after_20_seconds() {
        let (full, _peer) = duplex(4);
        let mut full = TimeoutStream::new(full, RequestPhase::default());
        check("write", WRITE_TIMEOUT, full.write_all(&[0; 5])).await;
        let (full, _peer) = duplex(4);
        let mut full = TimeoutStream::new(full, RequestPhase::default());
        full.write_all(&[0; 4]).await.unwrap();
        check("vectored write", WRITE_TIMEOUT, full.write_vectored(&[io::IoSlice::new(&[0])])).await;
        let mut stuck = TimeoutStream::new(StuckStream, RequestPhase::default());
        stuck.write_all(&[0; 5]).await.unwrap();
        check("flush", WRITE_TIMEOUT, stuck.flush()).await;
        check("shutdown", WRITE_TIMEOUT, TimeoutStream::new(StuckStream, RequestPhase::default()).shutdown()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn write_progress_restarts_the_timeout() {
        let (full, mut peer) = duplex(4);
        let mut full = TimeoutStream::new(full, RequestPhase::default());
        let taking = async {
            for _ in 0..3 {
                tokio::time::advance(WRITE_TIMEOUT - Duration::from_secs(1)).await;
                peer.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(full.write_all(&[0; 7]), taking);
        written.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn pushed_back_bytes_are_read_first_and_keep_the_head_timeout() {
        let (here, mut peer) = duplex(4);
        let mut stream = TimeoutStream::new(here, RequestPhase::default());
        peer.write_all(b"GET").await.unwrap();
        let mut read = vec![0; 3];
        stream.read_exact(&mut read).await.unwrap();
        let elapsed = Duration::from_secs(4);
        tokio::time::advance(elapsed).await;
        stream.push_back(read);
        peer.write_u8(b' ').await.unwrap();
        let mut again = [0; 4];
        stream.read_exact(&mut again).await.unwrap();
        assert_eq!(&again, b"GET ");
        check("the rest of the head", HEAD_TIMEOUT.checked_sub(elapsed).unwrap(), stream.read_u8()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn head_times_out_after_10_seconds_and_an_idle_connection_after_75() {
        let (here, mut peer) = duplex(4);
        let phase = RequestPhase::default();
        let mut stream = TimeoutStream::new(here, phase.clone());
        check("the first byte", HEAD_TIMEOUT, stream.read_u8()).await;
        peer.write_u8(b'G').await.unwrap();
        stream.read_u8().await.unwrap();
        check("the rest of the head", HEAD_TIMEOUT, stream.read_u8()).await;
        phase.advance();
        let answering = tokio::time::timeout(10 * IDLE_TIMEOUT, stream.read_u8()).await;
        assert!(answering.is_err(), "a request is being answered: {answering:?}");
        phase.advance();
        check("the next request", IDLE_TIMEOUT, stream.read_u8()).await;
    }
}
