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
pub(crate) const HEAD: Duration = Duration::from_secs(10);
/// Time between two requests. Longer than the idle timeout of an AWS load balancer (60 s), which
/// must be the side that closes first.
pub(crate) const IDLE: Duration = Duration::from_secs(75);
/// Time without progress of a write.
pub(crate) const STALLED: Duration = Duration::from_secs(20);

/// A counter that is odd while a request is being answered. Writer and reader run on the same task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phase(Arc<AtomicU32>);

impl Phase {
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
pub(crate) struct Patient<T> {
    inner: T,
    phase: Phase,
    seen: u32,
    /// Deadline for the rest of the current request head, or for the start of the next.
    read_by: Option<Instant>,
    in_head: bool,
    write_by: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that were read and pushed back; returned by the next reads.
    unread: Vec<u8>,
}

impl<T> Patient<T> {
    pub(crate) fn new(inner: T, phase: Phase) -> Self {
        // On a new connection the first byte has the same timeout as the rest of the head.
        let read_by = Some(Instant::now() + HEAD);
        Self {
            inner,
            seen: phase.get(),
            phase,
            read_by,
            in_head: false,
            write_by: None,
            timer: None,
            unread: Vec::new(),
        }
    }

    /// Pushes back bytes so that they are read again. Does not extend the current timeout.
    pub(crate) fn unread(&mut self, bytes: Vec<u8>) {
        self.unread = bytes;
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
            self.write_by = None;
            // The idle timeout starts after the response. No read may poll the stream before that.
            if let Some(by) = self.read_by.as_mut().filter(|_| !self.in_head) {
                *by = Instant::now() + IDLE;
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
        if !this.unread.is_empty() {
            let count = this.unread.len().min(buf.remaining());
            buf.put_slice(&this.unread[..count]);
            this.unread.drain(..count);
            if this.unread.is_empty() {
                this.unread = Vec::new();
            }
            this.note_read();
            return Poll::Ready(Ok(()));
        }
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
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_flush(cx);
        // hyper flushes on every poll: only a flush that had to wait is progress of the peer.
        if result.is_ready() && this.write_by.is_none() { result } else { this.on_write(result, cx) }
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
    struct Stuck;

    impl AsyncRead for Stuck {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stuck {
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
        let mut full = Patient::new(full, Phase::default());
        check("write", STALLED, full.write_all(&[0; 5])).await;
        let (full, _peer) = duplex(4);
        let mut full = Patient::new(full, Phase::default());
        full.write_all(&[0; 4]).await.unwrap();
        check("vectored write", STALLED, full.write_vectored(&[io::IoSlice::new(&[0])])).await;
        let mut stuck = Patient::new(Stuck, Phase::default());
        stuck.write_all(&[0; 5]).await.unwrap();
        check("flush", STALLED, stuck.flush()).await;
        check("shutdown", STALLED, Patient::new(Stuck, Phase::default()).shutdown()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn write_progress_restarts_the_timeout() {
        let (full, mut peer) = duplex(4);
        let mut full = Patient::new(full, Phase::default());
        let taking = async {
            for _ in 0..3 {
                tokio::time::advance(STALLED - Duration::from_secs(1)).await;
                peer.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(full.write_all(&[0; 7]), taking);
        written.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn pushed_back_bytes_are_read_first_and_keep_the_head_timeout() {
        let (here, mut peer) = duplex(4);
        let mut patient = Patient::new(here, Phase::default());
        peer.write_all(b"GET").await.unwrap();
        let mut read = vec![0; 3];
        patient.read_exact(&mut read).await.unwrap();
        let gone = Duration::from_secs(4);
        tokio::time::advance(gone).await;
        patient.unread(read);
        peer.write_u8(b' ').await.unwrap();
        let mut again = [0; 4];
        patient.read_exact(&mut again).await.unwrap();
        assert_eq!(&again, b"GET ");
        check("the rest of the head", HEAD.checked_sub(gone).unwrap(), patient.read_u8()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn head_times_out_after_10_seconds_and_an_idle_connection_after_75() {
        let (here, mut peer) = duplex(4);
        let phase = Phase::default();
        let mut patient = Patient::new(here, phase.clone());
        check("the first byte", HEAD, patient.read_u8()).await;
        peer.write_u8(b'G').await.unwrap();
        patient.read_u8().await.unwrap();
        check("the rest of the head", HEAD, patient.read_u8()).await;
        phase.advance();
        let answering = tokio::time::timeout(10 * IDLE, patient.read_u8()).await;
        assert!(answering.is_err(), "a request is being answered: {answering:?}");
        phase.advance();
        check("the next request", IDLE, patient.read_u8()).await;
    }
}
