//! A small RTMP client for the tests of this folder.

use bytes::BytesMut;
use headwater_wire::codec::h264::DecoderConfig;
use headwater_wire::rtmp::amf0::{self, Value};
use headwater_wire::rtmp::chunk::ChunkReader;
use headwater_wire::rtmp::message::{self, Message, kind};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection to the server under test.
pub(super) struct Client<S = TcpStream> {
    pub(super) socket: S,
    reader: ChunkReader,
    buffer: BytesMut,
}

/// The body of the message with an H.264 decoder configuration. Its SPS is too short to tell
/// whether frames are reordered.
pub(super) fn avc_header() -> Vec<u8> {
    let config = DecoderConfig::from_parameter_sets(vec![0x67, 66, 0, 31].into(), vec![0x68].into()).unwrap();
    [&[0x17, 0, 0, 0, 0], &config.encode()[..]].concat()
}

/// The body of a message with one video frame of `bytes` + 1 bytes, each equal to `mark`.
pub(super) fn video_body(key: bool, mark: u8, bytes: usize) -> Vec<u8> {
    let len = u32::try_from(bytes + 1).unwrap().to_be_bytes();
    let mut body = [&[if key { 0x17 } else { 0x27 }, 1, 0, 0, 0][..], &len].concat();
    body.resize(10 + bytes, mark);
    body
}

/// A command message on this message stream.
pub(super) fn command(stream: u32, values: &[Value]) -> Vec<u8> {
    let mut out = BytesMut::new();
    message::write(&mut out, kind::COMMAND_AMF0, stream, 0, &amf0::encode(values), &[]);
    out.to_vec()
}

/// The command that ends what the client publishes or plays.
pub(super) fn delete_stream() -> Vec<u8> {
    command(0, &["deleteStream".into(), 4.0.into(), Value::Null, 1.0.into()])
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Performs the handshake.
    pub(super) async fn handshake(mut socket: S) -> Self {
        let mut handshake = Handshake::new(PeerType::Client);
        socket.write_all(&handshake.generate_outbound_p0_and_p1().unwrap()).await.unwrap();
        let mut answer = vec![0; 1 + 2 * 1536];
        socket.read_exact(&mut answer).await.unwrap();
        let HandshakeProcessResult::Completed { response_bytes, .. } = handshake.process_bytes(&answer).unwrap() else {
            panic!("the handshake is not complete");
        };
        socket.write_all(&response_bytes).await.unwrap();
        let mut reader = ChunkReader::default();
        reader.expect_media();
        let mut client = Self { socket, reader, buffer: BytesMut::new() };
        client.send(kind::SET_CHUNK_SIZE, 0, 0, &60_000_u32.to_be_bytes()).await;
        client
    }

    /// Performs the handshake, `connect` and `createStream`.
    pub(super) async fn connected(socket: S) -> Self {
        let mut client = Self::handshake(socket).await;
        client.connect("live").await;
        client.wait_for_status("NetConnection.Connect.Success").await;
        client.command(0, &["createStream".into(), 2.0.into(), Value::Null]).await;
        client
    }

    pub(super) async fn connect(&mut self, app: &str) {
        let object = Value::Object(vec![("app".to_owned(), app.into())]);
        self.command(0, &["connect".into(), 1.0.into(), object]).await;
    }

    /// A publisher that has sent its H.264 sequence header.
    pub(super) async fn publisher(socket: S, name: &str) -> Self {
        let mut client = Self::connected(socket).await;
        client.request("publish", name).await;
        client.wait_for_status("NetStream.Publish.Start").await;
        client.send(kind::VIDEO, 1, 0, &avc_header()).await;
        client
    }

    pub(super) async fn player(socket: S, name: &str) -> Self {
        let mut client = Self::connected(socket).await;
        client.request("play", name).await;
        client.wait_for_status("NetStream.Play.Start").await;
        client
    }

    pub(super) async fn request(&mut self, what: &str, name: &str) {
        self.command(1, &[what.into(), 3.0.into(), Value::Null, name.into()]).await;
    }

    pub(super) async fn command(&mut self, stream: u32, values: &[Value]) {
        self.send(kind::COMMAND_AMF0, stream, 0, &amf0::encode(values)).await;
    }

    /// Sends one video frame of `bytes` + 1 bytes, each equal to `mark`.
    pub(super) async fn send_video(&mut self, ms: u32, key: bool, mark: u8, bytes: usize) {
        self.send(kind::VIDEO, 1, ms, &video_body(key, mark, bytes)).await;
    }

    pub(super) async fn send(&mut self, kind: u8, stream: u32, ms: u32, body: &[u8]) {
        let mut out = BytesMut::new();
        message::write(&mut out, kind, stream, ms, body, &[]);
        self.socket.write_all(&out).await.unwrap();
    }

    /// Sends `bytes` and then a ping; true if the ping was answered, so that all bytes were read.
    pub(super) async fn send_and_ping(&mut self, bytes: &[u8]) -> bool {
        let mut out = BytesMut::from(bytes);
        message::write(&mut out, kind::USER_CONTROL, 0, 0, &[0, 6, 0, 0, 0, 0], &[]);
        if self.socket.write_all(&out).await.is_err() {
            return false;
        }
        while let Some(message) = self.next().await {
            if message.kind == kind::USER_CONTROL && message.payload[..2] == [0, 7] {
                return true;
            }
        }
        false
    }

    /// The next message, or `None` once the connection is closed.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            let mut input = &self.buffer[..];
            let before = input.len();
            let message = self.reader.next(&mut input).unwrap();
            let taken = before - input.len();
            let _ = self.buffer.split_to(taken);
            if message.is_some() {
                return message;
            }
            if self.socket.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Skips messages up to the status with this code, and returns its description.
    pub(super) async fn wait_for_status(&mut self, code: &str) -> String {
        while let Some(message) = self.next().await {
            if message.kind == kind::COMMAND_AMF0 {
                let values = amf0::decode(&message.payload).unwrap();
                let text = |field| values.last().and_then(|v| v.get(field)).and_then(Value::as_str);
                if text("code") == Some(code) {
                    return text("description").unwrap_or_default().to_owned();
                }
            }
        }
        panic!("the connection ended before {code}");
    }

    /// Marks of the next `count` video frames.
    pub(super) async fn read_marks(&mut self, count: usize) -> Vec<u8> {
        let mut marks = Vec::new();
        while marks.len() < count {
            let message = self.next().await.expect("the connection ended before the frame");
            if message.kind == kind::VIDEO && message.payload[1] == 1 {
                assert!(message.payload[9..].iter().all(|&b| b == message.payload[9]), "a frame is corrupt");
                marks.push(message.payload[9]);
            }
        }
        marks
    }

    /// Waits until the server closes the connection.
    pub(super) async fn is_closed(&mut self) -> bool {
        while self.next().await.is_some() {}
        true
    }
}
