//! Probes whether a node still has a stream that it owns according to the registry.
//!
//! A killed node cannot release its streams, and their leases last a while. Before a name is taken
//! over, the owner is probed: a node whose relay port is closed, or that authenticates itself and
//! does not know the stream, does not have it. No answer proves nothing: the node may still serve.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_wire::relay::{ClusterSecret, EndReason, Message, Refusal};

use crate::gateway::relay::link::{Link, LinkError};

/// Result of probing the owner of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// The node has the stream.
    Yes,
    /// The node does not have the stream.
    No,
    /// There was an answer, but not a conclusive one.
    Unknown,
    /// There was no answer.
    Silent,
}

/// Resolves to the result of a probe.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Holds> + Send + 'a>>;

/// Probes the owners of streams.
pub trait AskOwner: std::fmt::Debug + Send + Sync {
    /// Probes the node with these relay addresses, best first. Ends within a few seconds.
    fn ask<'a>(&'a self, relays: &'a [SocketAddr], name: &'a StreamName) -> Asking<'a>;
}

/// Probes over the relay protocol.
#[derive(Debug, Clone)]
pub struct Inquiry {
    secret: ClusterSecret,
    patience: Duration,
}

impl Inquiry {
    /// `timeout` applies to the connection, and again to the answer.
    pub fn new(secret: ClusterSecret, patience: Duration) -> Self {
        Self { secret, patience }
    }

    async fn ask_one(&self, address: SocketAddr, name: &StreamName) -> Holds {
        match self.talk(address, name).await {
            // A node that does not have the stream refuses with `NotFound` before any other reason.
            Ok(Message::Accepted { .. } | Message::Refused(Refusal::Full | Refusal::Draining)) => Holds::Yes,
            Ok(Message::Refused(Refusal::NotFound)) => Holds::No,
            Err(LinkError::Socket(e)) => match e.kind() {
                ErrorKind::ConnectionRefused => Holds::No,
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::TimedOut => Holds::Silent,
                _ => Holds::Unknown,
            },
            Err(LinkError::TooSlow(_) | LinkError::Silent(_) | LinkError::NotReading(_)) => Holds::Silent,
            Ok(_) | Err(_) => Holds::Unknown,
        }
    }

    async fn talk(&self, address: SocketAddr, name: &StreamName) -> Result<Message, LinkError> {
        let Link { mut incoming, mut outgoing } = Link::dial(address, &self.secret, self.patience).await?;
        let wish = Message::Subscribe {
            app: name.app().to_owned(),
            stream_id: name.stream_id().to_owned(),
            history: false,
            reach: 1,
        };
        outgoing.say(&wish, self.patience).await?;
        let answer = incoming.next_within(self.patience).await?;
        // If this is not sent, the closed socket has the same effect.
        let _ = outgoing.say(&Message::End(EndReason::Idle), self.patience).await;
        Ok(answer)
    }
}

impl AskOwner for Inquiry {
    fn ask<'a>(&'a self, relays: &'a [SocketAddr], name: &'a StreamName) -> Asking<'a> {
        Box::pin(async move {
            let mut heard = Holds::Silent;
            for address in relays.iter().take(MAX_ADDRESSES) {
                match self.ask_one(*address, name).await {
                    Holds::Silent => {}
                    Holds::Unknown => heard = Holds::Unknown,
                    known => return known,
                }
            }
            heard
        })
    }
}

/// One private and one public address.
const MAX_ADDRESSES: usize = 2;
