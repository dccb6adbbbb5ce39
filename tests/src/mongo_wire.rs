//! Messages of the MongoDB wire protocol, as bytes and as their first document: OP_MSG, and
//! OP_QUERY and OP_REPLY for the first hello
//! (<https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>).

use std::io;

use mongodb::bson::{self, Document};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// One complete message.
#[derive(Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// Reads the next message.
    ///
    /// # Errors
    /// If the connection ends, or the length of the message is invalid.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut bytes = vec![0; 16];
        from.read_exact(&mut bytes).await?;
        let length = read_u32(&bytes, 0) as usize;
        if !(16..=48_000_000).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.resize(length, 0);
        from.read_exact(&mut bytes[16..]).await?;
        Ok(Self(bytes))
    }

    /// Writes the message to a connection.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.0).await
    }

    /// Builds an OP_MSG with this command.
    ///
    /// # Errors
    /// If it is too long.
    pub fn command(document: &Document) -> io::Result<Self> {
        Self::build(OP_MSG, 0, &[0; 5], document)
    }

    /// Parses the command, or the first document of a reply.
    ///
    /// # Errors
    /// If the message has no valid document.
    pub fn document(&self) -> io::Result<Document> {
        Document::from_reader(&self.0[self.document_offset()..]).map_err(io::Error::other)
    }

    /// Builds the reply to this message with `document` as its content.
    ///
    /// # Errors
    /// If it is too long.
    pub fn reply(&self, document: &Document) -> io::Result<Self> {
        if self.opcode() == OP_QUERY {
            let mut head = [0; 20];
            (head[0], head[16]) = (8, 1);
            Self::build(OP_REPLY, self.id(), &head, document)
        } else {
            Self::build(OP_MSG, self.id(), &[0; 5], document)
        }
    }

    fn build(opcode: u32, response_to: u32, head: &[u8], document: &Document) -> io::Result<Self> {
        let body = bson::serialize_to_vec(document).map_err(io::Error::other)?;
        let length = u32::try_from(16 + head.len() + body.len()).map_err(io::Error::other)?;
        let numbers = [length, 1, response_to, opcode].map(u32::to_le_bytes).concat();
        Ok(Self([&numbers[..], head, &body].concat()))
    }

    /// Offset of the first document.
    fn document_offset(&self) -> usize {
        match self.opcode() {
            OP_QUERY => {
                let name = self.0[20..].iter().position(|byte| *byte == 0).unwrap_or_default();
                (20 + name + 1 + 8).min(self.0.len())
            }
            OP_REPLY => 36.min(self.0.len()),
            _ => 21.min(self.0.len()),
        }
    }

    fn id(&self) -> u32 {
        read_u32(&self.0, 4)
    }

    fn opcode(&self) -> u32 {
        read_u32(&self.0, 12)
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

const OP_REPLY: u32 = 1;
const OP_QUERY: u32 = 2004;
const OP_MSG: u32 = 2013;
