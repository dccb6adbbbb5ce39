//! The fast path of HTTP/1.1 connections (RFC 9112): serves simple GET requests of HLS paths
//! without hyper.
//!
//! A request is simple if its head arrives in one read and contains no header field that changes
//! the response. Most players send nothing else, and a complete HTTP implementation costs more CPU
//! time per response than finding the content. At the first other request the connection, with the
//! bytes read so far, is handed to hyper.
//!
//! Measured with 1,000 viewers: 0.89 x the CPU time of nginx per request, and 1.00 x with hyper
//! (`docs/performance.md`; reasons in `docs/decisions/2026-11-27-hls-fast-path.md`).
//!
//! Independent of sockets and of the content. Reports only to `RequestPhase` when a request is
//! being answered, for the timeouts of the stream.

use std::cell::RefCell;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::http::error::Problem;
use crate::http::media::hls::find::{HlsContent, find};
use crate::http::media::hls::path::HlsPath;
use crate::http::media::hls::request::HlsRequest;
use crate::http::media::hls::viewer_id::viewer_id;
use crate::http::serve::client::{ClientResolver, FORWARDED_FOR, FORWARDED_PROTO};
use crate::http::serve::cors::{EXPOSED_HEADERS, Readers};
use crate::http::serve::timeout::RequestPhase;
use crate::http::state::AppState;

/// Maximum size of a head on the fast path.
const MAX_HEAD_BYTES: usize = 2 << 10;
/// Maximum number of header fields on the fast path.
const MAX_HEADERS: usize = 32;
/// Maximum body size of an error response.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Initial capacity for a response head; few are longer.
const TYPICAL_HEAD_BYTES: usize = 384;
/// Header fields that change how a request must be handled. Few players present their token with
/// `Authorization`.
const UNSUPPORTED_HEADERS: [&str; 5] = ["content-length", "transfer-encoding", "upgrade", "expect", "authorization"];

/// Serves requests until the connection ends (`None`), or returns the bytes read of the first
/// unsupported request.
///
/// # Errors
/// I/O errors of the stream.
pub(in crate::http) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut T,
    phase: &RequestPhase,
    state: &AppState,
    clients: &ClientResolver,
    drain: &CancellationToken,
) -> io::Result<Option<Vec<u8>>> {
    let mut drain_started = pin!(drain.cancelled());
    let mut read = Vec::new();
    loop {
        if read.is_empty() {
            let count = tokio::select! {
                biased;
                count = read_some(stream, &mut read) => count,
                () = drain_started.as_mut() => Ok(0),
            };
            // An idle timeout closes the connection in the same orderly way as end of file.
            if matches!(&count, Err(err) if err.kind() == io::ErrorKind::TimedOut) || count? == 0 {
                return stream.shutdown().await.map(|()| None);
            }
        }
        let Some(request) = Request::parse(&read) else { return Ok(Some(read)) };
        phase.advance();
        let (len, may_read) = (request.len, request.len == read.len());
        let Some((found, ahead)) = find_while_reading(stream, may_read, state, &request, clients).await? else {
            return Ok(None);
        };
        phase.advance();
        let is_last = request.is_last || drain.is_cancelled();
        let readers = Readers::of_app(&state.access, request.path.app(), request.origin);
        match found {
            Ok(found) => send_content(stream, &found, readers, is_last).await?,
            Err(problem) => send_problem(stream, problem, readers, is_last).await?,
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

/// Returns the content and any bytes that arrived meanwhile; `None` if the peer has disconnected.
/// With `may_read` false, pipelined requests are already buffered, and further bytes stay in the
/// socket.
async fn find_while_reading<T: AsyncRead + Unpin>(
    stream: &mut T,
    may_read: bool,
    state: &AppState,
    request: &Request<'_>,
    clients: &ClientResolver,
) -> io::Result<Option<(Result<HlsContent, Problem>, Vec<u8>)>> {
    let client = clients.resolve(request.forwarded_for.into_iter(), request.forwarded_proto.into_iter());
    let (viewer, client) = (viewer_id(client), client.address);
    let Request { path, query, .. } = *request;
    let hls = HlsRequest { path, query, authorization: None, viewer, client, is_head: false };
    let mut finding = pin!(find(state, hls));
    let mut ahead = Vec::new();
    loop {
        tokio::select! {
            biased;
            found = finding.as_mut() => return Ok(Some((found, ahead))),
            count = read_some(stream, &mut ahead), if may_read && ahead.is_empty() => if count? == 0 {
                return Ok(None);
            },
        }
    }
}

/// Appends at most [`MAX_HEAD_BYTES`] to `into`; returns 0 at end of file. An idle connection holds
/// no read buffer.
async fn read_some<T: AsyncRead + Unpin>(stream: &mut T, into: &mut Vec<u8>) -> io::Result<usize> {
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

/// A request of the fast path.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    path: HlsPath<'a>,
    query: Option<&'a str>,
    /// Value of the only `Origin`.
    origin: Option<&'a [u8]>,
    /// Value of the only `X-Forwarded-For`.
    forwarded_for: Option<&'a [u8]>,
    /// Value of the only `X-Forwarded-Proto`.
    forwarded_proto: Option<&'a [u8]>,
    /// `Connection: close`: the connection ends after the response.
    is_last: bool,
    /// Size of the head in bytes; there is no body.
    len: usize,
}

impl<'a> Request<'a> {
    /// Parses the first request in `bytes`; `None` if it is incomplete or unsupported.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let Ok(httparse::Status::Complete(len)) = request.parse_with_uninit_headers(bytes, &mut headers) else {
            return None;
        };
        // Leave characters that a URI must not contain (RFC 3986 appendix A) to hyper, which
        // refuses them.
        let has_invalid_chars = |target: &str| !target.is_ascii() || target.contains(['#', '<', '>', '"', '`']);
        let target = request.path.filter(|target| !has_invalid_chars(target))?;
        if request.method != Some("GET") || request.version != Some(1) {
            return None;
        }
        if has_bare_line_feed(&bytes[..len]) {
            return None;
        }
        let (mut host, mut origin, mut forwarded_for, mut forwarded_proto) = (None, None, None, None);
        let mut is_last = false;
        for header in &*request.headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("connection") {
                match header.value.trim_ascii() {
                    value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                    value if value.eq_ignore_ascii_case(b"close") => is_last = true,
                    _ => return None,
                }
            }
            if UNSUPPORTED_HEADERS.into_iter().any(is) {
                return None;
            }
            for (name, only) in [
                ("host", &mut host),
                ("origin", &mut origin),
                (FORWARDED_FOR, &mut forwarded_for),
                (FORWARDED_PROTO, &mut forwarded_proto),
            ] {
                if is(name) && only.replace(header.value).is_some() {
                    return None;
                }
            }
        }
        // hyper refuses requests without a valid Host.
        host.filter(|host| is_simple_host(host))?;
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Some(Self { path: HlsPath::parse(path)?, query, origin, forwarded_for, forwarded_proto, is_last, len })
    }
}

/// True if a line does not end with CR LF; hyper refuses such a head.
fn has_bare_line_feed(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n');
    // What follows the last line feed is no line.
    lines.next_back();
    lines.any(|line| !line.ends_with(b"\r"))
}

/// True for the characters of host names, addresses and ports.
fn is_simple_host(host: &[u8]) -> bool {
    !host.is_empty() && host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(b))
}

async fn send_content<T: AsyncWrite + Unpin>(
    stream: &mut T,
    found: &HlsContent,
    readers: Readers,
    is_last: bool,
) -> io::Result<()> {
    let mut head = Vec::with_capacity(TYPICAL_HEAD_BYTES);
    head.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: ");
    head.extend_from_slice(found.content_type().as_bytes());
    head.extend_from_slice(b"\r\ncache-control: ");
    write!(head, "{}", found.cache_control())?;
    head.extend_from_slice(b"\r\n");
    if readers == Readers::Any {
        head.extend_from_slice(b"access-control-allow-origin: *\r\naccess-control-expose-headers: ");
        head.extend_from_slice(EXPOSED_HEADERS.as_bytes());
        head.extend_from_slice(b"\r\n");
    } else {
        let mut headers = HeaderMap::new();
        readers.add_to(&mut headers);
        write_headers(&mut head, &headers);
    }
    send(stream, head, found.pieces(), is_last).await
}

async fn send_problem<T: AsyncWrite + Unpin>(
    stream: &mut T,
    problem: Problem,
    readers: Readers,
    is_last: bool,
) -> io::Result<()> {
    let (mut parts, body) = problem.into_response().into_parts();
    readers.add_to(&mut parts.headers);
    let body = axum::body::to_bytes(body, MAX_ERROR_BYTES).await.map_err(io::Error::other)?;
    let mut head = Vec::with_capacity(TYPICAL_HEAD_BYTES);
    write!(head, "HTTP/1.1 {}\r\n", parts.status)?;
    parts.headers.remove(header::CONTENT_LENGTH);
    write_headers(&mut head, &parts.headers);
    send(stream, head, &[body], is_last).await
}

fn write_headers(head: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
}

/// Completes `head` with the header fields of every response, and sends it with the body.
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

/// Writes an IMF-fixdate (RFC 9110 §5.6.7). Formatted once per second and thread.
fn write_date(into: &mut Vec<u8>) {
    thread_local! {
        static CACHED_DATE: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    CACHED_DATE.with_borrow_mut(|(cached_second, text)| {
        if *cached_second != second {
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            *cached_second = second;
        }
        into.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
#[path = "fast_path_test.rs"]
mod tests;
