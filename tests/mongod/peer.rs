//! Commands from one member of the set to another.

use std::io;

use mongodb::bson::{Document, doc};
use tokio::net::TcpStream;

use crate::wire::Message;

/// Sends a command to another member, authenticated by the key of the set.
pub(crate) async fn send_to_member(host: &str, mut command: Document, key: &str) -> io::Result<Document> {
    command.insert("key", key);
    let call = async {
        let mut peer = TcpStream::connect(host).await?;
        Message::command(&command)?.write(&mut peer).await?;
        Message::read(&mut peer).await?.document()
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(1), call).await??;
    if answer.get_i32("ok").unwrap_or_default() == 1 {
        Ok(answer)
    } else {
        Err(io::Error::other(doc! { "refused": answer }.to_string()))
    }
}
