//! The server side of MongoDB's wire protocol, as far as the driver uses it: OP_MSG, and OP_QUERY
//! for the first hello (<https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>).

use std::io;

use mongodb::bson::{self, Document};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Numbers of client connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Connections {
    /// Accepted in total.
    pub(super) total: usize,
    /// Open at the moment.
    pub(super) open: usize,
}

/// Answers every command of every client. Never returns; dropping the future closes its
/// connections.
pub(super) async fn serve(
    listener: TcpListener,
    connections_tx: watch::Sender<Connections>,
    answer: impl Fn(&Document) -> Document + Clone + Send + 'static,
) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        connections_tx.send_modify(|now| *now = Connections { total: now.total + 1, open: now.open + 1 });
        let (connections_tx, answer) = (connections_tx.clone(), answer.clone());
        connections.spawn(async move {
            // Fails when the client closes the connection, which is normal.
            let _ = answer_all(socket, answer).await;
            connections_tx.send_modify(|now| now.open -= 1);
        });
    }
}

async fn answer_all(mut socket: TcpStream, answer: impl Fn(&Document) -> Document) -> io::Result<()> {
    loop {
        let length = socket.read_i32_le().await?;
        let request = socket.read_i32_le().await?;
        let _response_to = socket.read_i32_le().await?;
        let opcode = socket.read_i32_le().await?;
        let mut body = vec![0; usize::try_from(length - 16).unwrap()];
        socket.read_exact(&mut body).await?;
        let document = if opcode == OP_MSG {
            &body[5..]
        } else {
            let name = body[4..].iter().position(|b| *b == 0).unwrap();
            &body[4 + name + 1 + 8..]
        };
        let command = Document::from_reader(document).unwrap();
        let answer = bson::serialize_to_vec(&answer(&command)).unwrap();
        let (opcode, head) = if opcode == OP_MSG {
            (OP_MSG, vec![0; 5])
        } else {
            let mut head = vec![0; 20];
            head[0] = 8;
            head[16] = 1;
            (OP_REPLY, head)
        };
        let mut reply = Vec::new();
        for n in [(16 + head.len() + answer.len()) as i32, 0, request, opcode] {
            reply.extend_from_slice(&n.to_le_bytes());
        }
        reply.extend_from_slice(&head);
        reply.extend_from_slice(&answer);
        socket.write_all(&reply).await?;
    }
}

const OP_REPLY: i32 = 1;
const OP_MSG: i32 = 2013;
