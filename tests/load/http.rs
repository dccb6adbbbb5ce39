//! A small HTTP/1.1 client over one persistent connection (RFC 9112): enough for playlists,
//! segments and WHEP.
//!
//! Bodies can be kept or only counted, so that a thousand viewers need not store what they fetch.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A client with one connection, reopened when the server has closed it.
#[derive(Debug)]
pub(crate) struct Client {
    server: SocketAddr,
    socket: Option<TcpStream>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Status line and header lines as received.
    pub(crate) head: String,
    /// Empty if the body was only counted.
    pub(crate) body: Vec<u8>,
    /// Size of the response, head included.
    pub(crate) bytes: usize,
}

impl Response {
    /// The value of a header field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|l| l.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as text.
    ///
    /// # Errors
    /// If the status is not 2xx or the body is not UTF-8.
    pub(crate) fn text(&self) -> Result<&str> {
        ensure!(self.status / 100 == 2, "HTTP {}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(std::str::from_utf8(&self.body)?)
    }
}

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self { server, socket: None }
    }

    /// Fetches `path`; keeps the body only if `keep` is set.
    ///
    /// # Errors
    /// If there is no response within 20 s, or it is not HTTP. An error status is not an error.
    pub(crate) async fn get(&mut self, path: &str, keep: bool) -> Result<Response> {
        self.request("GET", path, "", keep).await.with_context(|| format!("GET {path}"))
    }

    /// Posts an SDP offer.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn post_sdp(&mut self, path: &str, sdp: &str) -> Result<Response> {
        self.request("POST", path, sdp, true).await.with_context(|| format!("POST {path}"))
    }

    /// Deletes a session.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn delete(&mut self, path: &str) -> Result<Response> {
        self.request("DELETE", path, "", true).await.with_context(|| format!("DELETE {path}"))
    }

    async fn request(&mut self, method: &str, path: &str, body: &str, keep: bool) -> Result<Response> {
        let reused = self.socket.is_some();
        let first = tokio::time::timeout(RESPONSE_TIMEOUT, self.try_request(method, path, body, keep)).await;
        match first.context("no response in time")? {
            // The server may have closed the persistent connection: retry once on a new one.
            Err(_) if reused => {
                self.socket = None;
                tokio::time::timeout(RESPONSE_TIMEOUT, self.try_request(method, path, body, keep)).await?
            }
            response => response,
        }
    }

    async fn try_request(&mut self, method: &str, path: &str, body: &str, keep: bool) -> Result<Response> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = TcpStream::connect(self.server).await?;
                socket.set_nodelay(true)?;
                socket
            }
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.server);
        if !body.is_empty() {
            request += &format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        request += body;
        socket.write_all(request.as_bytes()).await?;

        let mut buffer = Vec::with_capacity(4096);
        let head_bytes = loop {
            ensure!(socket.read_buf(&mut buffer).await? > 0, "the server closed the connection");
            if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(buffer.len() < 64 * 1024, "the response head is too long");
        };
        let head = String::from_utf8_lossy(&buffer[..head_bytes]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no status code")?;
        let mut response = Response { status, head, body: Vec::new(), bytes: buffer.len() };
        if status == 204 {
            self.socket = Some(socket);
            return Ok(response);
        }
        let rest = buffer.split_off(head_bytes);
        if let Some(length) = response.header("content-length") {
            let length: usize = length.parse()?;
            response.bytes += length.saturating_sub(rest.len());
            read_sized(&mut socket, rest, length, keep, &mut response.body).await?;
        } else if response.header("transfer-encoding").is_some() {
            response.bytes += read_chunked(&mut socket, rest, &mut response.body).await?;
        } else if status != 304 {
            bail!("a response without a length");
        }
        if response.header("connection").is_none_or(|c| !c.eq_ignore_ascii_case("close")) {
            self.socket = Some(socket);
        }
        Ok(response)
    }
}

async fn read_sized(
    socket: &mut TcpStream,
    rest: Vec<u8>,
    length: usize,
    keep: bool,
    body: &mut Vec<u8>,
) -> Result<()> {
    let mut left = length.checked_sub(rest.len()).context("the body is longer than announced")?;
    if keep {
        *body = rest;
        body.reserve_exact(left);
        while left > 0 {
            let n = (&mut *socket).take(left as u64).read_buf(body).await?;
            ensure!(n > 0, "the response is incomplete");
            left -= n;
        }
        return Ok(());
    }
    let mut sink = vec![0u8; left.min(64 * 1024)];
    while left > 0 {
        let room = left.min(sink.len());
        let n = socket.read(&mut sink[..room]).await?;
        ensure!(n > 0, "the response is incomplete");
        left -= n;
    }
    Ok(())
}

/// Reads a chunked body (RFC 9112 §7.1); returns the number of bytes read.
async fn read_chunked(socket: &mut TcpStream, mut buffer: Vec<u8>, body: &mut Vec<u8>) -> Result<usize> {
    let mut read = 0;
    loop {
        let mut at = 0;
        let mut chunks = Vec::new();
        while let Some(line) = buffer[at..].windows(2).position(|w| w == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&buffer[at..at + line])?.trim(), 16)?;
            let start = at + line + 2;
            if buffer.len() < start + size + 2 {
                break;
            }
            chunks.extend_from_slice(&buffer[start..start + size]);
            at = start + size + 2;
            if size == 0 {
                body.extend_from_slice(&chunks);
                return Ok(read);
            }
        }
        body.extend_from_slice(&chunks);
        buffer.drain(..at);
        let n = socket.read_buf(&mut buffer).await?;
        ensure!(n > 0, "the response is incomplete");
        read += n;
    }
}

/// Longer than any blocking playlist request may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
