//! One encrypted connection: the handshake, then messages in both directions.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use headwater_wire::relay::{
    Answer, CLIENT_HELLO_BYTES, Channel, ClusterSecret, Dial, HelloError, Message, MessageError, Messages, Opener,
    PROOF_BYTES, RecordError, SERVER_HELLO_BYTES, Sealer,
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
    TooSlow(Duration),
    #[error("the peer accepted no bytes for {} ms", .0.as_millis())]
    NotReading(Duration),
    #[error("the peer was silent for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the handshake failed")]
    Hello(#[from] HelloError),
    #[error("invalid record")]
    Record(#[from] RecordError),
    #[error("invalid message")]
    Message(#[from] MessageError),
    #[error("the peer sent a message that is not allowed in this state")]
    OutOfPlace,
    #[error("more than {0} bytes arrived before the stream was live")]
    TooMuch(usize),
}

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
}

impl Link {
    /// Connects and performs the handshake, within `timeout`.
    pub(super) async fn dial(
        address: SocketAddr,
        secret: &ClusterSecret,
        patience: Duration,
    ) -> Result<Self, LinkError> {
        let talk = async {
            let mut socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let (dial, hello) = Dial::new(secret, rand::random());
            socket.write_all(&hello).await?;
            let mut server = [0; SERVER_HELLO_BYTES];
            socket.read_exact(&mut server).await?;
            let (proof, channel) = dial.on_hello(&server)?;
            socket.write_all(&proof).await?;
            Ok(Self::new(socket, channel))
        };
        tokio::time::timeout(patience, talk).await.unwrap_or(Err(LinkError::TooSlow(patience)))
    }

    /// Performs the handshake of an accepted connection, within `timeout`.
    pub(super) async fn answer(
        mut socket: TcpStream,
        secret: &ClusterSecret,
        patience: Duration,
    ) -> Result<Self, LinkError> {
        let talk = async {
            socket.set_nodelay(true)?;
            let mut client = [0; CLIENT_HELLO_BYTES];
            socket.read_exact(&mut client).await?;
            let (answer, hello) = Answer::new(secret, rand::random(), &client)?;
            socket.write_all(&hello).await?;
            let mut proof = [0; PROOF_BYTES];
            socket.read_exact(&mut proof).await?;
            Ok(Self::new(socket, answer.on_proof(&proof)?))
        };
        tokio::time::timeout(patience, talk).await.unwrap_or(Err(LinkError::TooSlow(patience)))
    }

    fn new(socket: TcpStream, channel: Channel) -> Self {
        let (read, write) = socket.into_split();
        Self {
            incoming: Incoming { socket: read, open: channel.open, messages: None },
            outgoing: Outgoing { socket: write, seal: channel.seal, buffer: BytesMut::new() },
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct Incoming {
    socket: OwnedReadHalf,
    open: Opener,
    messages: Option<Messages>,
}

impl Incoming {
    /// Returns the next message. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Message, LinkError> {
        loop {
            if let Some(messages) = &mut self.messages {
                match messages.message()? {
                    Some(message) => return Ok(message),
                    None => self.messages = None,
                }
            }
            if let Some(record) = self.open.record()? {
                self.messages = Some(Messages::new(record));
            } else if self.socket.read_buf(self.open.buffer()).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }

    /// Returns the next message, or an error if none arrives within `timeout`.
    pub(super) async fn next_within(&mut self, patience: Duration) -> Result<Message, LinkError> {
        tokio::time::timeout(patience, self.next()).await.unwrap_or(Err(LinkError::Silent(patience)))
    }
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Outgoing {
    socket: OwnedWriteHalf,
    seal: Sealer,
    buffer: BytesMut,
}

impl Outgoing {
    /// Appends a record to the buffer; [`LinkWriter::flush`] sends it.
    pub(super) fn record(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.seal.record(&mut self.buffer, write);
    }

    /// Sends the buffer. Fails if a write makes no progress within `timeout`.
    pub(super) async fn flush(&mut self, patience: Duration) -> Result<(), LinkError> {
        while !self.buffer.is_empty() {
            let written = tokio::time::timeout(patience, self.socket.write_buf(&mut self.buffer)).await;
            if written.map_err(|_| LinkError::NotReading(patience))?? == 0 {
                return Err(LinkError::Closed);
            }
        }
        if self.buffer.capacity() > MAX_IDLE_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Sends one message and flushes.
    pub(super) async fn say(&mut self, message: &Message, patience: Duration) -> Result<(), LinkError> {
        self.record(|out| message.write(out));
        self.flush(patience).await
    }
}

/// The buffer is freed if it has grown beyond this.
const MAX_IDLE_BYTES: usize = 512 << 10;
