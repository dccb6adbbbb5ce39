//! Serves a connection for as long as it brings plain requests and nothing else: each a GET of an address of HLS whose head
//! comes in one piece and says nothing that changes the answer (RFC 9112). That is all most players ever send, and a library
//! that knows the whole of HTTP costs more per answer than finding it. The first request that is not plain is left, unread,
//! for that library, with all that follows.
//!
//! Knows nothing of sockets, nor of how an answer is found. Of limits on waiting it knows only that they want to be told when a
//! request is being answered (`http::patience::Phase`).

use std::cell::RefCell;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::header;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::address::Wanted;
use super::find::{Found, find};
use super::{readable, viewer};
use crate::http::patience::Phase;
use crate::http::{Problem, State};

/// Longer heads are not plain.
const MAX_HEAD_BYTES: usize = 2 << 10;
/// Nor are those with more lines.
const MAX_HEADERS: usize = 32;
/// Of what stands in the body of an error.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Room for the head of an answer; few have more.
const HEAD_BYTES: usize = 256;
/// Header fields that change what has to be done.
const NOT_PLAIN: [&str; 4] = ["content-length", "transfer-encoding", "upgrade", "expect"];

/// Answers until the connection ends (`None`), or gives what has been read of the first request that is not plain.
///
/// # Errors
/// Those of the stream.
pub(in crate::http) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut T,
    phase: &Phase,
    state: &State,
    peer: SocketAddr,
    drain: &CancellationToken,
) -> io::Result<Option<Vec<u8>>> {
    let mut drained = pin!(drain.cancelled());
    let mut read = Vec::new();
    loop {
        if read.is_empty() {
            let count = tokio::select! {
                biased;
                count = fill(stream, &mut read) => count,
                () = drained.as_mut() => Ok(0),
            };
            // A peer that was silent for too long is told that this is the end, as others are.
            if matches!(&count, Err(err) if err.kind() == io::ErrorKind::TimedOut) || count? == 0 {
                return stream.shutdown().await.map(|()| None);
            }
        }
        let Some(request) = Request::parse(&read) else { return Ok(Some(read)) };
        phase.advance();
        let (len, may_read) = (request.len, request.len == read.len());
        let Some((found, ahead)) = answer(stream, may_read, state, &request, peer).await? else { return Ok(None) };
        phase.advance();
        let is_last = request.is_last || drain.is_cancelled();
        match found {
            Ok(found) => send_found(stream, &found, is_last).await?,
            Err(problem) => send_problem(stream, problem, is_last).await?,
        }
        if is_last {
            return stream.shutdown().await.map(|()| None);
        }
        if may_read {
            read = ahead;
        } else {
            read.drain(..len);
        }
    }
}

/// The answer, and what came ahead of its time meanwhile; `None` if the peer has hung up. A peer of whom something waits already
/// is not listened to (`may_read`): what follows waits in the socket.
async fn answer<T: AsyncRead + Unpin>(
    stream: &mut T,
    may_read: bool,
    state: &State,
    request: &Request<'_>,
    peer: SocketAddr,
) -> io::Result<Option<(Result<Found, Problem>, Vec<u8>)>> {
    let viewer = viewer(request.forwarded, Some(peer));
    let mut finding = pin!(find(state, request.wanted, request.query, viewer));
    let mut ahead = Vec::new();
    loop {
        tokio::select! {
            biased;
            found = finding.as_mut() => return Ok(Some((found, ahead))),
            count = fill(stream, &mut ahead), if may_read && ahead.is_empty() => if count? == 0 {
                return Ok(None);
            },
        }
    }
}

/// Appends what has come, [`MAX_HEAD_BYTES`] at most; 0 at the end. Until something comes, a connection holds no memory for it.
async fn fill<T: AsyncRead + Unpin>(stream: &mut T, into: &mut Vec<u8>) -> io::Result<usize> {
    std::future::poll_fn(|cx| {
        let mut room = [MaybeUninit::uninit(); MAX_HEAD_BYTES];
        let mut room = ReadBuf::uninit(&mut room);
        Pin::new(&mut *stream).poll_read(cx, &mut room).map_ok(|()| {
            into.extend_from_slice(room.filled());
            room.filled().len()
        })
    })
    .await
}

/// What a plain request says.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    wanted: Wanted<'a>,
    query: Option<&'a str>,
    /// `X-Forwarded-For`.
    forwarded: Option<&'a [u8]>,
    /// Its sender wants the connection to end with the answer.
    is_last: bool,
    /// Bytes of its head; it has no body.
    len: usize,
}

impl<'a> Request<'a> {
    /// The first request in `bytes`; `None` if it is not plain, or not whole.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let Ok(httparse::Status::Complete(len)) = request.parse_with_uninit_headers(bytes, &mut headers) else {
            return None;
        };
        // What no address may hold (RFC 3986 appendix A) the library refuses.
        let is_odd = |target: &str| !target.is_ascii() || target.contains(['#', '<', '>', '"', '`']);
        let target = request.path.filter(|target| !is_odd(target))?;
        if request.method != Some("GET") || request.version != Some(1) {
            return None;
        }
        let (mut forwarded, mut is_last) = (None, false);
        for header in &*request.headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("connection") {
                match header.value.trim_ascii() {
                    value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                    value if value.eq_ignore_ascii_case(b"close") => is_last = true,
                    _ => return None,
                }
            }
            if NOT_PLAIN.into_iter().any(is) {
                return None;
            }
            if forwarded.is_none() && is("x-forwarded-for") {
                forwarded = Some(header.value);
            }
        }
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Some(Self { wanted: Wanted::parse(path)?, query, forwarded, is_last, len })
    }
}

async fn send_found<T: AsyncWrite + Unpin>(stream: &mut T, found: &Found, is_last: bool) -> io::Result<()> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: ");
    head.extend_from_slice(found.content_type().as_bytes());
    head.extend_from_slice(b"\r\ncache-control: ");
    head.extend_from_slice(found.cache_control().as_bytes());
    head.extend_from_slice(b"\r\naccess-control-allow-origin: *\r\n");
    send(stream, head, found.pieces(), is_last).await
}

async fn send_problem<T: AsyncWrite + Unpin>(stream: &mut T, problem: Problem, is_last: bool) -> io::Result<()> {
    let (parts, body) = readable(problem.into_response()).into_parts();
    let body = axum::body::to_bytes(body, MAX_ERROR_BYTES).await.map_err(io::Error::other)?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    write!(head, "HTTP/1.1 {}\r\n", parts.status)?;
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    send(stream, head, &[body], is_last).await
}

/// Sends an answer whose `head` still lacks what every answer says.
async fn send<T: AsyncWrite + Unpin>(
    stream: &mut T,
    mut head: Vec<u8>,
    body: &[Bytes],
    is_last: bool,
) -> io::Result<()> {
    let len: usize = body.iter().map(Bytes::len).sum();
    write!(head, "content-length: {len}\r\ndate: ")?;
    write_date(&mut head);
    head.extend_from_slice(if is_last { b"\r\nconnection: close\r\n\r\n" } else { b"\r\n\r\n" });
    let pieces = body.iter().map(AsRef::as_ref);
    let mut slices: SmallVec<[IoSlice<'_>; 4]> = std::iter::once(&*head).chain(pieces).map(IoSlice::new).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match stream.write_vectored(rest).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            sent => IoSlice::advance_slices(&mut rest, sent),
        }
    }
    stream.flush().await
}

/// Writes the date as RFC 9110 §5.6.7 wants it. Made once a second and thread.
fn write_date(into: &mut Vec<u8>) {
    thread_local! {
        static MADE: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    MADE.with_borrow_mut(|(made, text)| {
        if *made != second {
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            *made = second;
        }
        into.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
#[path = "plain_test.rs"]
mod tests;
