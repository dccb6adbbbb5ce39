//! One encrypted connection: the handshake, then messages in both directions.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use headwater_wire::relay::{
    CLIENT_HELLO_BYTES, Channel, ClientHandshake, ClusterSecret, Features, HandshakeError, Message, MessageError,
    MessageReader, Opener, PROOF_BYTES, RecordError, SERVER_HELLO_BYTES, Sealer, ServerHandshake,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Why a link failed or could not be established.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the socket failed")]
    Socket(#[from] io::Error),
    #[error("the peer closed the connection")]
    Closed,
    #[error("no connection and handshake within {} ms", .0.as_millis())]
    HandshakeTimeout(Duration),
    #[error("the peer accepted no bytes for {} ms", .0.as_millis())]
    WriteTimeout(Duration),
    #[error("the peer was silent for {} ms", .0.as_millis())]
    ReadTimeout(Duration),
    #[error("the handshake failed")]
    Handshake(#[from] HandshakeError),
    #[error("invalid record")]
    Record(#[from] RecordError),
    #[error("invalid message")]
    Message(#[from] MessageError),
    #[error("the peer sent a message that is not allowed in this state")]
    UnexpectedMessage,
    #[error("more than {0} bytes arrived before the stream was live")]
    BacklogTooLarge(usize),
}

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) reader: LinkReader,
    pub(super) writer: LinkWriter,
    pub(super) peer_features: Features,
}

impl Link {
    /// Connects and performs the handshake, within `timeout`.
    pub(super) async fn connect(
        address: SocketAddr,
        secret: &ClusterSecret,
        timeout: Duration,
    ) -> Result<Self, LinkError> {
        let handshake = async {
            let mut socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let (client, hello) = ClientHandshake::new(secret, rand::random());
            socket.write_all(&hello).await?;
            let mut server_hello = [0; SERVER_HELLO_BYTES];
            socket.read_exact(&mut server_hello).await?;
            let (proof, channel) = client.on_server_hello(&server_hello)?;
            socket.write_all(&proof).await?;
            Ok(Self::new(socket, channel))
        };
        tokio::time::timeout(timeout, handshake).await.unwrap_or(Err(LinkError::HandshakeTimeout(timeout)))
    }

    /// Performs the handshake of an accepted connection, within `timeout`.
    pub(super) async fn accept(
        mut socket: TcpStream,
        secret: &ClusterSecret,
        timeout: Duration,
    ) -> Result<Self, LinkError> {
        let handshake = async {
            socket.set_nodelay(true)?;
            let mut client_hello = [0; CLIENT_HELLO_BYTES];
            socket.read_exact(&mut client_hello).await?;
            let (server, hello) = ServerHandshake::new(secret, rand::random(), &client_hello)?;
            socket.write_all(&hello).await?;
            let mut proof = [0; PROOF_BYTES];
            socket.read_exact(&mut proof).await?;
            Ok(Self::new(socket, server.on_proof(&proof)?))
        };
        tokio::time::timeout(timeout, handshake).await.unwrap_or(Err(LinkError::HandshakeTimeout(timeout)))
    }

    fn new(socket: TcpStream, channel: Channel) -> Self {
        let (read, write) = socket.into_split();
        Self {
            reader: LinkReader { socket: read, opener: channel.opener, messages: None },
            writer: LinkWriter { socket: write, sealer: channel.sealer, buffer: BytesMut::new() },
            peer_features: channel.peer_features,
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct LinkReader {
    socket: OwnedReadHalf,
    opener: Opener,
    messages: Option<MessageReader>,
}

impl LinkReader {
    /// Returns the next message. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Message, LinkError> {
        loop {
            if let Some(messages) = &mut self.messages {
                match messages.next_message()? {
                    Some(message) => return Ok(message),
                    None => self.messages = None,
                }
            }
            if let Some(record) = self.opener.next_record()? {
                self.messages = Some(MessageReader::new(record));
            } else if self.socket.read_buf(self.opener.buffer()).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }

    /// Returns the next message, or an error if none arrives within `timeout`.
    pub(super) async fn next_within(&mut self, timeout: Duration) -> Result<Message, LinkError> {
        tokio::time::timeout(timeout, self.next()).await.unwrap_or(Err(LinkError::ReadTimeout(timeout)))
    }
}

/// The sending half.
#[derive(Debug)]
pub(super) struct LinkWriter {
    socket: OwnedWriteHalf,
    sealer: Sealer,
    buffer: BytesMut,
}

impl LinkWriter {
    /// Appends a record to the buffer; [`LinkWriter::flush`] sends it.
    pub(super) fn queue_record(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.sealer.seal_record(&mut self.buffer, write);
    }

    /// Sends the buffer. Fails if a write makes no progress within `timeout`.
    pub(super) async fn flush(&mut self, timeout: Duration) -> Result<(), LinkError> {
        while !self.buffer.is_empty() {
            let written = tokio::time::timeout(timeout, self.socket.write_buf(&mut self.buffer)).await;
            if written.map_err(|_| LinkError::WriteTimeout(timeout))?? == 0 {
                return Err(LinkError::Closed);
            }
        }
        if self.buffer.capacity() > MAX_IDLE_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Sends one message and flushes.
    pub(super) async fn send(&mut self, message: &Message, timeout: Duration) -> Result<(), LinkError> {
        self.queue_record(|out| message.write(out));
        self.flush(timeout).await
    }
}

/// The buffer is freed if it has grown beyond this.
const MAX_IDLE_BYTES: usize = 512 << 10;
