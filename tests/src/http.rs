//! A minimal HTTP client: one request per connection, the whole response in memory.
//!
//! HTTP/1.1 (RFC 9112) with `Content-Length`, chunked and until-close bodies. It is strict on
//! purpose: a response with broken framing is an error.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::wait::WAIT_TIMEOUT;

/// A complete response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Names in lower case and values, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// Body without its transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// If it is not JSON of this shape.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("status {}, body {:?}", self.status, self.text()))
    }
}

/// Sends a GET request.
///
/// # Errors
/// If there is no complete response within [`WAIT_TIMEOUT`].
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<Response> {
    request(address, "GET", path, &[], b"")
}

/// Like [`get`], for a server that may not answer.
///
/// # Errors
/// If it does not answer, or pauses for `timeout`.
pub fn get_within(address: SocketAddr, path: &str, timeout: Duration) -> anyhow::Result<Response> {
    exchange(TcpStream::connect_timeout(&address, timeout)?, timeout, "GET", path, &[], b"")
}

/// Sends a request. Adds `Host`, `Connection` and `Content-Length`.
///
/// # Errors
/// If there is no complete response within [`WAIT_TIMEOUT`].
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Response> {
    request_on(TcpStream::connect_timeout(&address, WAIT_TIMEOUT)?, method, path, headers, body)
}

/// Like [`request`], on an open connection, which may have a local address of its own.
///
/// # Errors
/// If there is no complete response within [`WAIT_TIMEOUT`].
pub fn request_on(
    stream: TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Response> {
    exchange(stream, WAIT_TIMEOUT, method, path, headers, body)
}

fn exchange(
    mut stream: TcpStream,
    timeout: Duration,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Response> {
    let address = stream.peer_addr()?;
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // A server may respond and close before it has read the whole request (413). The response
    // counts, not the failed write.
    let written = stream.write_all(&bytes);
    let mut received = Vec::new();
    let read = stream.read_to_end(&mut received);
    if received.is_empty() {
        written?;
        read?;
    }
    parse(&received, method == "HEAD").with_context(|| format!("{method} http://{address}{path}"))
}

/// Parses one complete response.
///
/// # Errors
/// If it is truncated or its framing is broken.
pub fn parse(received: &[u8], is_head: bool) -> anyhow::Result<Response> {
    let end = received.windows(4).position(|w| w == b"\r\n\r\n").with_context(|| {
        format!("no end of headers in a response of {} bytes: {:?}", received.len(), String::from_utf8_lossy(received))
    })?;
    let head = std::str::from_utf8(&received[..end])?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no status code")?;
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())))
        .collect::<Option<_>>()
        .context("a header without a colon")?;
    let mut response = Response { status, headers, body: received[end + 4..].to_vec() };
    if is_head || matches!(status, 100..=199 | 204 | 304) {
        ensure!(response.body.is_empty(), "a body in a response that must not have one");
    } else if response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        response.body = decode_chunked(&response.body)?;
    } else if let Some(length) = response.header("content-length") {
        let length: usize = length.parse()?;
        ensure!(
            response.body.len() == length,
            "the body has {} bytes, content-length is {length}",
            response.body.len()
        );
    }
    Ok(response)
}

/// Decodes chunked transfer coding (RFC 9112 §7.1).
fn decode_chunked(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|w| w == b"\r\n").context("truncated in a chunk size")?;
        let size = std::str::from_utf8(&rest[..line_end])?.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16)?;
        rest = &rest[line_end + 2..];
        if size == 0 {
            return Ok(body);
        }
        let (Some(chunk), Some(b"\r\n")) = (rest.get(..size), rest.get(size..size + 2)) else {
            bail!("truncated in a chunk of {size} bytes");
        };
        body.extend_from_slice(chunk);
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_by_length_and_by_chunks_and_truncation_is_an_error() {
        let by_length = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false).unwrap();
        assert_eq!((by_length.status, by_length.text().as_str()), (200, "hi"));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\n\r\n";
        assert_eq!(parse(chunked, false).unwrap().body, b"hi");
        assert!(parse(&chunked[..chunked.len() - 8], false).is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", false).is_err());
    }
}
