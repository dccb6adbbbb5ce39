//! Opens an RTMP session: handshake, `connect`, `createStream`, then `publish` or `play`
//! (RTMP 1.0 §5.2, §7.2).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::skim::{Message, Skimmer};

/// Purpose of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Publish,
    Play,
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) socket: TcpStream,
    pub(crate) skimmer: Skimmer,
}

/// Timeout of the whole procedure.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Chunk size for sending: that of OBS.
pub(crate) const CHUNK_BYTES: usize = 4096;

/// Message stream id: the first one that a server assigns.
pub(crate) const STREAM_ID: u8 = 1;

/// Connects and publishes or plays `app/key`.
///
/// Returns once the publisher is accepted or the `play` command is sent; frames may follow at once.
///
/// # Errors
/// If the server refused or did not respond in time.
pub(crate) async fn open(server: SocketAddr, app: &str, key: &str, purpose: Purpose) -> Result<Session> {
    tokio::time::timeout(OPEN_TIMEOUT, open_session(server, app, key, purpose))
        .await
        .with_context(|| format!("{server} did not respond within {OPEN_TIMEOUT:?}"))?
}

async fn open_session(server: SocketAddr, app: &str, key: &str, purpose: Purpose) -> Result<Session> {
    let mut socket = TcpStream::connect(server).await.with_context(|| format!("could not connect to {server}"))?;
    socket.set_nodelay(true)?;
    let mut hello = [0u8; 1 + HANDSHAKE_BYTES];
    hello[0] = 3;
    hello[9..].iter_mut().enumerate().for_each(|(i, b)| *b = (i * 7 % 251) as u8);
    socket.write_all(&hello).await?;
    let mut response = [0u8; 1 + 2 * HANDSHAKE_BYTES];
    socket.read_exact(&mut response).await.context("the handshake is incomplete")?;
    ensure!(response[0] == 3, "not an RTMP server");

    let mut out = response[1..=HANDSHAKE_BYTES].to_vec();
    if purpose == Purpose::Publish {
        message(&mut out, 2, 1, 0, &(CHUNK_BYTES as u32).to_be_bytes());
    }
    let mut connect = Amf::command("connect", 1.0);
    connect.object(&[("app", app), ("tcUrl", &format!("rtmp://{server}/{app}")), ("flashVer", "FMLE/3.0")]);
    message(&mut out, 3, 20, 0, &connect.0);
    socket.write_all(&out).await?;

    let mut session = Session { socket, skimmer: Skimmer::default() };
    session.wait_result(2.0, "connect").await?;
    let mut create = Amf::command("createStream", 2.0);
    create.null();
    session.send(3, 20, 0, &create.0).await?;
    session.wait_result(3.0, "createStream").await?;
    let mut start = Amf::command(if purpose == Purpose::Play { "play" } else { "publish" }, 0.0);
    start.null();
    start.string(key);
    if purpose == Purpose::Publish {
        start.string("live");
    }
    session.send(8, 20, STREAM_ID, &start.0).await?;
    if purpose == Purpose::Publish {
        session.until(|m| Ok(contains(m.head, b"NetStream.Publish.Start").then_some(()))).await?;
    }
    Ok(session)
}

impl Session {
    /// Sends one message of at most one chunk.
    pub(crate) async fn send(&mut self, chunk_stream: u8, kind: u8, stream_id: u8, payload: &[u8]) -> Result<()> {
        let mut out = Vec::with_capacity(payload.len() + 12);
        message(&mut out, chunk_stream, kind, stream_id, payload);
        Ok(self.socket.write_all(&out).await?)
    }

    /// Waits for the `_result` of the last command; `next` is the number
    /// of the following transaction.
    async fn wait_result(&mut self, next: f64, command: &'static str) -> Result<()> {
        let transaction = (next - 1.0).to_be_bytes();
        self.until(|m| {
            let matches = m.kind == 20 && contains(m.head, &transaction);
            ensure!(!(matches && contains(m.head, b"_error")), "the server refused `{command}`");
            Ok((matches && contains(m.head, b"_result")).then_some(()))
        })
        .await
        .with_context(|| format!("no response to `{command}`"))
    }

    /// Reads until `condition` finds what it waits for; later messages of the same read
    /// are looked at, too.
    async fn until<T>(&mut self, mut condition: impl FnMut(&Message<'_>) -> Result<Option<T>>) -> Result<T> {
        let mut buffer = vec![0u8; 16 * 1024];
        loop {
            let n = self.socket.read(&mut buffer).await?;
            if n == 0 {
                bail!("the server closed the connection");
            }
            let mut found = None;
            self.skimmer.feed(&buffer[..n], |m| {
                if m.kind == 20 && contains(m.head, b"onStatus") && contains(m.head, b"error") {
                    bail!("the server refused: {}", String::from_utf8_lossy(m.head));
                }
                if found.is_none() {
                    found = condition(&m)?;
                }
                Ok(())
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }
}

/// The response to a server's ping (RTMP 1.0 §7.1.7), if `message` is one.
pub(crate) fn pong(message: &Message<'_>) -> Option<[u8; 6]> {
    let [0, 6, time @ ..] = message.head.get(..6)? else { return None };
    (message.kind == 4).then_some([0, 7, time[0], time[1], time[2], time[3]])
}

/// Appends one message of at most one chunk, with a full chunk header and timestamp 0.
pub(crate) fn message(out: &mut Vec<u8>, chunk_stream: u8, kind: u8, stream_id: u8, payload: &[u8]) {
    out.extend_from_slice(&[chunk_stream, 0, 0, 0]);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, stream_id, 0, 0, 0]);
    out.extend_from_slice(payload);
}

/// True if `needle` is somewhere in `bytes`.
pub(crate) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle)
}

/// An AMF0 command being written (AMF0 specification §2).
struct Amf(Vec<u8>);

impl Amf {
    fn command(name: &str, transaction: f64) -> Self {
        let mut amf = Self(Vec::new());
        amf.string(name);
        amf.0.push(0);
        amf.0.extend_from_slice(&transaction.to_be_bytes());
        amf
    }

    fn null(&mut self) {
        self.0.push(5);
    }

    fn string(&mut self, text: &str) {
        self.0.push(2);
        self.key(text);
    }

    fn key(&mut self, text: &str) {
        self.0.extend_from_slice(&(text.len() as u16).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn object(&mut self, fields: &[(&str, &str)]) {
        self.0.push(3);
        for (key, value) in fields {
            self.key(key);
            self.string(value);
        }
        self.0.extend_from_slice(&[0, 0, 9]);
    }
}

const HANDSHAKE_BYTES: usize = 1536;
