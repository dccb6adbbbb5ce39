//! Self-test: publishes two AAC packets to this server and plays them back over TCP, as an
//! independent client would.
//!
//! The stream is in an app with a random name and in a separate hub, so that it is neither listed,
//! counted nor announced to the cluster.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use headwater_wire::rtmp::amf0::{self, Value};
use headwater_wire::rtmp::chunk::ChunkReader;
use headwater_wire::rtmp::message::{self, Message, kind};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::hub::{Hub, Limits};

/// App, hub and result of the self-test.
#[derive(Debug)]
pub(super) struct LoopbackTest {
    /// Random, so that no other client can use it.
    pub(super) app: String,
    pub(super) hub: Hub,
    pub(super) outcome_tx: watch::Sender<Result<(), String>>,
}

impl LoopbackTest {
    pub(super) fn new() -> Self {
        let limits = Limits { max_streams: 1, ..Limits::default() };
        let outcome_tx = watch::Sender::new(Err("has not worked yet".to_owned()));
        Self { app: format!("loopback-{:032x}", rand::random::<u128>()), hub: Hub::new(limits), outcome_tx }
    }

    /// True for the app of the test, until the test has succeeded.
    pub(super) fn accepts_app(&self, app: &str) -> bool {
        app == self.app && self.outcome_tx.borrow().is_err()
    }

    /// Repeats the test until it has succeeded once.
    pub(super) async fn run(&self, server: SocketAddr) {
        let server = loopback_address(server);
        loop {
            let result = match tokio::time::timeout(ATTEMPT_TIMEOUT, self.run_once(server)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(e)) => Err(format!("has not worked yet: {e}")),
                Err(_) => Err(format!("has not worked yet: no audio came back within {} s", ATTEMPT_TIMEOUT.as_secs())),
            };
            let worked = result.is_ok();
            if let Err(reason) = &result {
                log::debug!(err = reason.as_str(); "loop-back publish and play");
            }
            let _ = self.outcome_tx.send_replace(result);
            if worked {
                return;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn run_once(&self, server: SocketAddr) -> io::Result<()> {
        let mut publisher = Client::connect(server, &self.app).await?;
        publisher.request("publish", "NetStream.Publish.Start").await?;
        publisher.send(kind::AUDIO, 1, 0, &AAC_HEADER).await?;
        publisher.send(kind::AUDIO, 1, 0, &AAC_SILENCE).await?;
        let mut player = Client::connect(server, &self.app).await?;
        player.request("play", "NetStream.Play.Start").await?;
        // One more, so that it does not matter when the player joins.
        publisher.send(kind::AUDIO, 1, 23, &AAC_SILENCE).await?;
        loop {
            let message = player.next().await?;
            if message.kind == kind::AUDIO && message.payload == AAC_SILENCE[..] {
                return Ok(());
            }
        }
    }
}

struct Client {
    socket: TcpStream,
    reader: ChunkReader,
    buffer: BytesMut,
}

impl Client {
    /// Performs the handshake, `connect` and `createStream`.
    async fn connect(server: SocketAddr, app: &str) -> io::Result<Self> {
        let mut socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let refused = |_| io::Error::other("invalid handshake");
        let mut handshake = Handshake::new(PeerType::Client);
        socket.write_all(&handshake.generate_outbound_p0_and_p1().map_err(refused)?).await?;
        let mut answer = vec![0; 1 + 2 * 1536];
        socket.read_exact(&mut answer).await?;
        let HandshakeProcessResult::Completed { response_bytes, .. } =
            handshake.process_bytes(&answer).map_err(refused)?
        else {
            return Err(io::Error::other("the handshake is incomplete"));
        };
        socket.write_all(&response_bytes).await?;
        let mut client = Self { socket, reader: ChunkReader::default(), buffer: BytesMut::new() };
        client.send(kind::SET_CHUNK_SIZE, 0, 0, &60_000_u32.to_be_bytes()).await?;
        let object = Value::Object(vec![("app".to_owned(), app.into())]);
        client.command(0, &["connect".into(), 1.0.into(), object]).await?;
        client.wait_for_status("NetConnection.Connect.Success").await?;
        client.command(0, &["createStream".into(), 2.0.into(), Value::Null]).await?;
        Ok(client)
    }

    async fn request(&mut self, what: &str, code: &str) -> io::Result<()> {
        self.command(1, &[what.into(), 3.0.into(), Value::Null, STREAM_ID.into()]).await?;
        self.wait_for_status(code).await
    }

    async fn command(&mut self, stream: u32, values: &[Value]) -> io::Result<()> {
        self.send(kind::COMMAND_AMF0, stream, 0, &amf0::encode(values)).await
    }

    async fn send(&mut self, kind: u8, stream: u32, ms: u32, body: &[u8]) -> io::Result<()> {
        let mut out = BytesMut::new();
        message::write(&mut out, kind, stream, ms, body, &[]);
        self.socket.write_all(&out).await
    }

    async fn next(&mut self) -> io::Result<Message> {
        loop {
            let mut input = &self.buffer[..];
            let before = input.len();
            let message = self.reader.next(&mut input).map_err(io::Error::other)?;
            let taken = before - input.len();
            let _ = self.buffer.split_to(taken);
            if let Some(message) = message {
                return Ok(message);
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::other("the server closed the connection"));
            }
        }
    }

    /// Skips messages up to the status with this code.
    async fn wait_for_status(&mut self, code: &str) -> io::Result<()> {
        loop {
            let message = self.next().await?;
            if message.kind != kind::COMMAND_AMF0 {
                continue;
            }
            let values = amf0::decode(&message.payload).map_err(io::Error::other)?;
            let received = values.last().and_then(|v| v.get("code")).and_then(Value::as_str);
            match received {
                Some(received) if received == code => return Ok(()),
                Some(received)
                    if values.last().and_then(|v| v.get("level")).and_then(Value::as_str) == Some("error") =>
                {
                    return Err(io::Error::other(format!("{received} instead of {code}")));
                }
                _ => {}
            }
        }
    }
}

/// Address to connect to: an unspecified listening address includes loopback.
fn loopback_address(server: SocketAddr) -> SocketAddr {
    let ip = if server.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { server.ip() };
    SocketAddr::new(ip, server.port())
}

const STREAM_ID: &str = "loopback";
/// FLV audio tag bodies of AAC-LC, 44.1 kHz, mono: AudioSpecificConfig, and one raw block of
/// silence.
const AAC_HEADER: [u8; 4] = [0xaf, 0, 0x12, 0x08];
const AAC_SILENCE: [u8; 8] = [0xaf, 1, 0x01, 0x40, 0x20, 0x06, 0x4f, 0xde];
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Short, because readiness of a starting node waits for the test.
const RETRY_DELAY: Duration = Duration::from_millis(100);
