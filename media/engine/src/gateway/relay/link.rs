//! One sealed connection: the handshake, then messages in both directions.

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

/// Why a link is over or never was.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the socket failed")]
    Socket(#[from] io::Error),
    #[error("the peer closed the connection")]
    Closed,
    #[error("no connection and handshake within {} ms", .0.as_millis())]
    TooSlow(Duration),
    #[error("the peer took nothing for {} ms", .0.as_millis())]
    NotReading(Duration),
    #[error("the peer was silent for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("no handshake")]
    Hello(#[from] HelloError),
    #[error("the connection cannot be followed")]
    Record(#[from] RecordError),
    #[error("the conversation cannot be followed")]
    Message(#[from] MessageError),
    #[error("the peer says what is out of place here")]
    OutOfPlace,
    #[error("more than {0} bytes came before the stream was live")]
    TooMuch(usize),
}

/// Both directions.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
}

impl Link {
    /// Connects and proves who we are, within `patience`.
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

    /// Lets a peer prove who it is, within `patience`.
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

/// What the peer says.
#[derive(Debug)]
pub(super) struct Incoming {
    socket: OwnedReadHalf,
    open: Opener,
    messages: Option<Messages>,
}

impl Incoming {
    /// The next message. Cancel-safe.
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

    /// The same, but not a peer that says nothing for so long.
    pub(super) async fn next_within(&mut self, patience: Duration) -> Result<Message, LinkError> {
        tokio::time::timeout(patience, self.next()).await.unwrap_or(Err(LinkError::Silent(patience)))
    }
}

/// What this end says.
#[derive(Debug)]
pub(super) struct Outgoing {
    socket: OwnedWriteHalf,
    seal: Sealer,
    buffer: BytesMut,
}

impl Outgoing {
    /// Adds a record to what [`Outgoing::flush`] sends.
    pub(super) fn record(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.seal.record(&mut self.buffer, write);
    }

    /// Sends what was added; a peer that takes nothing of it for `patience` is gone.
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

    /// One message, sent at once.
    pub(super) async fn say(&mut self, message: &Message, patience: Duration) -> Result<(), LinkError> {
        self.record(|out| message.write(out));
        self.flush(patience).await
    }
}

/// The buffer is not kept beyond this.
const MAX_IDLE_BYTES: usize = 512 << 10;
