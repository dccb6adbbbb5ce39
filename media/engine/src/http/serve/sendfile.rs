//! A TCP stream that sends bytes of memory files with sendfile(2), and writes all other bytes.
//!
//! Used below hyper and the fast path, which only handle bytes in memory: the address of a buffer
//! shows whether it belongs to a memory file.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::runtime::memfd;
use crate::runtime::memfd::MemfdRange;

/// Smaller buffers are copied, which is cheaper than the look-up of their file.
const MIN_SENDFILE_BYTES: usize = 16 << 10;

/// A TCP stream that sends memory files without copying them.
#[derive(Debug)]
pub(crate) struct SendfileStream(TcpStream);

impl SendfileStream {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// Repeats the system call while the socket is ready, until it succeeds or fails.
    fn poll_send(&self, cx: &mut Context<'_>, send: impl Fn() -> io::Result<usize>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_io(Interest::WRITABLE, &send) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_send_file(&self, cx: &mut Context<'_>, range: &MemfdRange, len: usize) -> Poll<io::Result<usize>> {
        self.poll_send(cx, || {
            let mut offset = range.offset;
            Ok(rustix::fs::sendfile(&self.0, range, Some(&mut offset), len)?)
        })
    }

    /// For a response head that is followed by a file: MSG_MORE lets both leave in one packet.
    fn poll_send_head(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, || Ok(rustix::net::send(&self.0, buf, SendFlags::MORE | SendFlags::NOSIGNAL)?))
    }
}

fn memfd_range(buf: &[u8]) -> Option<MemfdRange> {
    if buf.len() < MIN_SENDFILE_BYTES { None } else { memfd::find(buf) }
}

impl AsyncRead for SendfileStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SendfileStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match memfd_range(buf) {
            Some(range) => self.poll_send_file(cx, &range, buf.len()),
            None => Pin::new(&mut self.get_mut().0).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut full = bufs.iter().filter(|buf| !buf.is_empty());
        let Some(first) = full.next() else { return Poll::Ready(Ok(0)) };
        if let Some(range) = memfd_range(first) {
            return self.poll_send_file(cx, &range, first.len());
        }
        if full.next().is_some_and(|second| memfd_range(second).is_some()) {
            return self.poll_send_head(cx, first);
        }
        // Bytes of a file in a later buffer are copied, unless they are the first of the next call.
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (SendfileStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (SendfileStream::new(listener.accept().await.unwrap().0), client)
    }

    /// Writes all buffers with vectored writes, as hyper does.
    async fn write_all(stream: &mut SendfileStream, bufs: &[Bytes]) {
        let mut rest: Vec<&[u8]> = bufs.iter().map(AsRef::as_ref).collect();
        while rest.iter().any(|buf| !buf.is_empty()) {
            let slices: Vec<_> = rest.iter().map(|buf| IoSlice::new(buf)).collect();
            let mut sent = stream.write_vectored(&slices).await.unwrap();
            assert!(sent > 0);
            for buf in &mut rest {
                let taken = sent.min(buf.len());
                *buf = &buf[taken..];
                sent -= taken;
            }
        }
    }

    #[tokio::test]
    async fn files_and_other_bytes_arrive_complete_and_in_order() {
        let (mut stream, mut client) = pair().await;
        let file = memfd::store(&[(0..3_000_000_u32).map(|n| (n % 251) as u8).collect::<Bytes>()]).unwrap();
        let head = Bytes::from_static(b"head");
        // Larger than the socket buffers, so that writing waits for reading. Files are first, last,
        // in between and adjacent.
        let bufs = [file.clone(), head.clone(), Bytes::new(), file.slice(7..2_000_000), head, file.slice(5..9), file];
        let expected = bufs.concat();
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            got
        });
        write_all(&mut stream, &bufs).await;
        drop(stream);
        assert!(reading.await.unwrap() == expected);
    }

    #[tokio::test]
    async fn bytes_in_the_socket_remain_valid_after_their_file_is_dropped() {
        let (mut stream, mut client) = pair().await;
        let file = memfd::store(&[Bytes::from(vec![9; 50_000])]).unwrap();
        write_all(&mut stream, std::slice::from_ref(&file)).await;
        drop(file);
        let others = memfd::store(&[Bytes::from(vec![1; 50_000])]).unwrap();
        let mut got = vec![0; 50_000];
        client.read_exact(&mut got).await.unwrap();
        assert!(got.iter().all(|b| *b == 9) && others[0] == 1);
    }

    #[tokio::test]
    async fn write_to_a_closed_connection_fails() {
        let (mut stream, client) = pair().await;
        let file = memfd::store(&[Bytes::from(vec![9; 50_000])]).unwrap();
        drop(client);
        while stream.write(&file).await.is_ok() {}
    }
}
