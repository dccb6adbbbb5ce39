//! A scripted RTMP peer: publishes given bytes, plays and gives every message, or falls silent, exactly when the test says.
//!
//! The protocol is `rml_rtmp`'s, which is not ours: a fault on both sides of one implementation would hide itself.

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

use crate::wait::PATIENCE;

/// An open session that publishes or plays one stream. Every call waits [`PATIENCE`] at the longest.
pub struct Peer {
    socket: TcpStream,
    session: ClientSession,
    events: VecDeque<ClientSessionEvent>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Body of an audio or video message, with its time in milliseconds.
pub type Media = (u32, Bytes);

impl Peer {
    /// Connects and publishes `live/id`; returns once the server has said yes.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub fn publisher(server: SocketAddr, id: &str) -> anyhow::Result<Self> {
        Self::publisher_in(server, APP, id)
    }

    /// Connects and publishes `app/id`; returns once the server has said yes.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub fn publisher_in(server: SocketAddr, app: &str, id: &str) -> anyhow::Result<Self> {
        let mut peer = Self::connected(TcpStream::connect_timeout(&server, PATIENCE)?, app)?;
        let request = peer.session.request_publishing(id.to_owned(), PublishRequestType::Live)?;
        peer.take(vec![request])?;
        peer.wait(|e| *e == ClientSessionEvent::PublishRequestAccepted).context("publish")?;
        Ok(peer)
    }

    /// Connects and plays `live/id`; returns once the server has said yes.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub fn player(server: SocketAddr, id: &str) -> anyhow::Result<Self> {
        Self::player_in(server, APP, id)
    }

    /// Connects and plays `app/id`; returns once the server has said yes.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub fn player_in(server: SocketAddr, app: &str, id: &str) -> anyhow::Result<Self> {
        Self::play(TcpStream::connect_timeout(&server, PATIENCE)?, app, id)
    }

    /// Like [`Peer::player`], with a receive buffer of the smallest size the kernel gives: who does not read is felt soon.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub fn narrow_player(server: SocketAddr, id: &str) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.set_recv_buffer_size(4 << 10)?;
        socket.connect_timeout(&server.into(), PATIENCE)?;
        Self::play(socket.into(), APP, id)
    }

    fn play(socket: TcpStream, app: &str, id: &str) -> anyhow::Result<Self> {
        let mut peer = Self::connected(socket, app)?;
        let request = peer.session.request_playback(id.to_owned())?;
        peer.take(vec![request])?;
        peer.wait(|e| *e == ClientSessionEvent::PlaybackRequestAccepted).context("play")?;
        Ok(peer)
    }

    fn connected(mut socket: TcpStream, app: &str) -> anyhow::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut handshake = Handshake::new(PeerType::Client);
        socket.write_all(&handshake.generate_outbound_p0_and_p1()?)?;
        let mut answer = vec![0; 1 + 2 * 1_536];
        socket.read_exact(&mut answer)?;
        let HandshakeProcessResult::Completed { response_bytes, .. } = handshake.process_bytes(&answer)? else {
            bail!("the handshake is not complete");
        };
        socket.write_all(&response_bytes)?;
        let (session, first) = ClientSession::new(ClientSessionConfig::new())?;
        let mut peer = Self { socket, session, events: VecDeque::new() };
        peer.take(first)?;
        let request = peer.session.request_connection(app.to_owned())?;
        peer.take(vec![request])?;
        peer.wait(|e| *e == ClientSessionEvent::ConnectionRequestAccepted).context("connect")?;
        Ok(peer)
    }

    /// Sends a video message.
    ///
    /// # Errors
    /// If the server is gone or does not read.
    pub fn send_video(&mut self, ms: u32, body: Bytes) -> anyhow::Result<()> {
        let result = self.session.publish_video_data(body, RtmpTimestamp::new(ms), false)?;
        self.take(vec![result])
    }

    /// Sends an audio message.
    ///
    /// # Errors
    /// If the server is gone or does not read.
    pub fn send_audio(&mut self, ms: u32, body: Bytes) -> anyhow::Result<()> {
        let result = self.session.publish_audio_data(body, RtmpTimestamp::new(ms), false)?;
        self.take(vec![result])
    }

    /// The next video message.
    ///
    /// # Errors
    /// If none comes in time, or the server hangs up.
    pub fn video(&mut self) -> anyhow::Result<Media> {
        match self.wait(|e| matches!(e, ClientSessionEvent::VideoDataReceived { .. })).context("pictures")? {
            ClientSessionEvent::VideoDataReceived { timestamp, data } => Ok((timestamp.value, data)),
            other => bail!("waited for pictures and got {other:?}"),
        }
    }

    /// The next audio message.
    ///
    /// # Errors
    /// If none comes in time, or the server hangs up.
    pub fn audio(&mut self) -> anyhow::Result<Media> {
        match self.wait(|e| matches!(e, ClientSessionEvent::AudioDataReceived { .. })).context("sound")? {
            ClientSessionEvent::AudioDataReceived { timestamp, data } => Ok((timestamp.value, data)),
            other => bail!("waited for sound and got {other:?}"),
        }
    }

    /// Waits until the server hangs up; what it still says is thrown away.
    ///
    /// # Errors
    /// If it does not within [`PATIENCE`].
    pub fn hung_up(mut self) -> anyhow::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let deadline = Instant::now() + PATIENCE;
        loop {
            ensure!(Instant::now() < deadline, "the server still speaks after {PATIENCE:?}");
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn wait(&mut self, wanted: impl Fn(&ClientSessionEvent) -> bool) -> anyhow::Result<ClientSessionEvent> {
        let mut buffer = vec![0; 64 << 10];
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(event) = self.events.pop_front() {
                match &event {
                    event_wanted if wanted(event_wanted) => return Ok(event),
                    ClientSessionEvent::ConnectionRequestRejected { description } => bail!("refused: {description}"),
                    ClientSessionEvent::UnhandleableOnStatusCode { code } if !NEWS.contains(&code.as_str()) => {
                        bail!("refused: {code}");
                    }
                    _ => {}
                }
            }
            // Other messages than the one that is waited for may come for ever.
            ensure!(Instant::now() < deadline, "not within {PATIENCE:?}, though the server speaks");
            let read = self.socket.read(&mut buffer)?;
            ensure!(read > 0, "the server hung up");
            let results = self.session.handle_input(&buffer[..read])?;
            self.take(results)?;
        }
    }

    fn take(&mut self, results: Vec<ClientSessionResult>) -> anyhow::Result<()> {
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

/// Where nothing else is said.
const APP: &str = "live";
/// Codes of `onStatus` that `rml_rtmp` does not know and that refuse nothing.
const NEWS: [&str; 2] = ["NetStream.Play.Reset", "NetStream.Data.Start"];
