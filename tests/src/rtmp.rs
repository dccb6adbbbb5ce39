//! A scripted RTMP client: publishes given bytes, returns every message that it plays, or stops
//! sending, at the moment the test chooses.
//!
//! Uses the independent implementation `rml_rtmp`, because a fault on both sides of one
//! implementation would stay hidden.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType,
};
use rml_rtmp::time::RtmpTimestamp;
use socket2::{Domain, Socket, Type};

use crate::wait::WAIT_TIMEOUT;

/// An open session that publishes or plays one stream. Every call waits at most [`WAIT_TIMEOUT`].
pub struct RtmpClient {
    socket: TcpStream,
    session: ClientSession,
    events: VecDeque<ClientSessionEvent>,
}

impl std::fmt::Debug for RtmpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtmpClient").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Timestamp in milliseconds and body of an audio or video message.
pub type MediaMessage = (u32, Bytes);

impl RtmpClient {
    /// Connects and publishes `live/id`; returns once the server has accepted.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub fn publisher(server: SocketAddr, id: &str) -> anyhow::Result<Self> {
        Self::publisher_in(server, DEFAULT_APP, id)
    }

    /// Connects and publishes `app/id`; returns once the server has accepted.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub fn publisher_in(server: SocketAddr, app: &str, id: &str) -> anyhow::Result<Self> {
        Self::publisher_on(TcpStream::connect_timeout(&server, WAIT_TIMEOUT)?, app, id)
    }

    /// Publishes `app/id` on an open connection, which may have a local address of its own.
    ///
    /// # Errors
    /// If the server refuses or does not answer.
    pub fn publisher_on(socket: TcpStream, app: &str, id: &str) -> anyhow::Result<Self> {
        let mut client = Self::connect(socket, app)?;
        let request = client.session.request_publishing(id.to_owned(), PublishRequestType::Live)?;
        client.handle_results(vec![request])?;
        client.wait_event(|e| *e == ClientSessionEvent::PublishRequestAccepted).context("publish")?;
        Ok(client)
    }

    /// Connects and plays `live/id`; returns once the server has accepted.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub fn player(server: SocketAddr, id: &str) -> anyhow::Result<Self> {
        Self::player_in(server, DEFAULT_APP, id)
    }

    /// Connects and plays `app/id`; returns once the server has accepted.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub fn player_in(server: SocketAddr, app: &str, id: &str) -> anyhow::Result<Self> {
        Self::player_on(TcpStream::connect_timeout(&server, WAIT_TIMEOUT)?, app, id)
    }

    /// Like [`RtmpClient::player`], with the smallest receive buffer the kernel allows, so that it
    /// is soon full if the client does not read.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub fn player_with_small_buffer(server: SocketAddr, id: &str) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.set_recv_buffer_size(4 << 10)?;
        socket.connect_timeout(&server.into(), WAIT_TIMEOUT)?;
        Self::player_on(socket.into(), DEFAULT_APP, id)
    }

    /// Plays `app/id` on an open connection, which may have a local address of its own.
    ///
    /// # Errors
    /// If the server refuses or does not answer.
    pub fn player_on(socket: TcpStream, app: &str, id: &str) -> anyhow::Result<Self> {
        let mut client = Self::connect(socket, app)?;
        let request = client.session.request_playback(id.to_owned())?;
        client.handle_results(vec![request])?;
        client.wait_event(|e| *e == ClientSessionEvent::PlaybackRequestAccepted).context("play")?;
        Ok(client)
    }

    fn connect(mut socket: TcpStream, app: &str) -> anyhow::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(WAIT_TIMEOUT))?;
        socket.set_write_timeout(Some(WAIT_TIMEOUT))?;
        let mut handshake = Handshake::new(PeerType::Client);
        socket.write_all(&handshake.generate_outbound_p0_and_p1()?)?;
        let mut response = vec![0; 1 + 2 * 1_536];
        socket.read_exact(&mut response)?;
        let HandshakeProcessResult::Completed { response_bytes, .. } = handshake.process_bytes(&response)? else {
            bail!("the handshake is not complete");
        };
        socket.write_all(&response_bytes)?;
        let (session, first) = ClientSession::new(ClientSessionConfig::new())?;
        let mut client = Self { socket, session, events: VecDeque::new() };
        client.handle_results(first)?;
        let request = client.session.request_connection(app.to_owned())?;
        client.handle_results(vec![request])?;
        client.wait_event(|e| *e == ClientSessionEvent::ConnectionRequestAccepted).context("connect")?;
        Ok(client)
    }

    /// Sends a video message.
    ///
    /// # Errors
    /// If the server has disconnected or does not read.
    pub fn send_video(&mut self, ms: u32, body: Bytes) -> anyhow::Result<()> {
        let result = self.session.publish_video_data(body, RtmpTimestamp::new(ms), false)?;
        self.handle_results(vec![result])
    }

    /// Sends an audio message.
    ///
    /// # Errors
    /// If the server has disconnected or does not read.
    pub fn send_audio(&mut self, ms: u32, body: Bytes) -> anyhow::Result<()> {
        let result = self.session.publish_audio_data(body, RtmpTimestamp::new(ms), false)?;
        self.handle_results(vec![result])
    }

    /// Waits for the next video message.
    ///
    /// # Errors
    /// If none arrives in time, or the server closes the connection.
    pub fn next_video(&mut self) -> anyhow::Result<MediaMessage> {
        match self.wait_event(|e| matches!(e, ClientSessionEvent::VideoDataReceived { .. })).context("video")? {
            ClientSessionEvent::VideoDataReceived { timestamp, data } => Ok((timestamp.value, data)),
            other => bail!("expected a video message, got {other:?}"),
        }
    }

    /// Waits for the next audio message.
    ///
    /// # Errors
    /// If none arrives in time, or the server closes the connection.
    pub fn next_audio(&mut self) -> anyhow::Result<MediaMessage> {
        match self.wait_event(|e| matches!(e, ClientSessionEvent::AudioDataReceived { .. })).context("audio")? {
            ClientSessionEvent::AudioDataReceived { timestamp, data } => Ok((timestamp.value, data)),
            other => bail!("expected an audio message, got {other:?}"),
        }
    }

    /// Waits until the server closes the connection; discards what it still sends.
    ///
    /// # Errors
    /// If it does not close within [`WAIT_TIMEOUT`].
    pub fn wait_closed(mut self) -> anyhow::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            ensure!(Instant::now() < deadline, "the server still sends after {WAIT_TIMEOUT:?}");
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn wait_event(&mut self, is_match: impl Fn(&ClientSessionEvent) -> bool) -> anyhow::Result<ClientSessionEvent> {
        let mut buffer = vec![0; 64 << 10];
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            while let Some(event) = self.events.pop_front() {
                match &event {
                    candidate if is_match(candidate) => return Ok(event),
                    ClientSessionEvent::ConnectionRequestRejected { description } => bail!("refused: {description}"),
                    ClientSessionEvent::UnhandleableOnStatusCode { code }
                        if !INFORMATIONAL_CODES.contains(&code.as_str()) =>
                    {
                        bail!("refused: {code}");
                    }
                    _ => {}
                }
            }
            // The server may send other messages without end.
            ensure!(
                Instant::now() < deadline,
                "the expected event did not arrive within {WAIT_TIMEOUT:?}, although the server sends"
            );
            let read = self.socket.read(&mut buffer)?;
            ensure!(read > 0, "the server closed the connection");
            let results = self.session.handle_input(&buffer[..read])?;
            self.handle_results(results)?;
        }
    }

    fn handle_results(&mut self, results: Vec<ClientSessionResult>) -> anyhow::Result<()> {
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => self.socket.write_all(&packet.bytes)?,
                ClientSessionResult::RaisedEvent(event) => self.events.push_back(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        Ok(())
    }
}

/// App of the constructors without an app.
const DEFAULT_APP: &str = "live";
/// Codes of `onStatus` that `rml_rtmp` does not handle and that are not refusals.
const INFORMATIONAL_CODES: [&str; 2] = ["NetStream.Play.Reset", "NetStream.Data.Start"];
