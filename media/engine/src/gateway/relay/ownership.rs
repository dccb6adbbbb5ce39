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
pub enum Ownership {
    /// The node has the stream.
    Held,
    /// The node does not have the stream.
    NotHeld,
    /// There was an answer, but not a conclusive one.
    Unknown,
    /// There was no answer.
    NoAnswer,
}

/// Resolves to the result of a probe.
pub type ProbeFuture<'a> = Pin<Box<dyn Future<Output = Ownership> + Send + 'a>>;

/// Probes the owners of streams.
pub trait OwnershipProbe: std::fmt::Debug + Send + Sync {
    /// Probes the node with these relay addresses, best first. Ends within a few seconds.
    fn probe<'a>(&'a self, relays: &'a [SocketAddr], name: &'a StreamName) -> ProbeFuture<'a>;
}

/// Probes over the relay protocol.
#[derive(Debug, Clone)]
pub struct RelayProbe {
    secret: ClusterSecret,
    timeout: Duration,
}

impl RelayProbe {
    /// `timeout` applies to the connection, and again to the answer.
    pub fn new(secret: ClusterSecret, timeout: Duration) -> Self {
        Self { secret, timeout }
    }

    async fn probe_address(&self, address: SocketAddr, name: &StreamName) -> Ownership {
        match self.exchange(address, name).await {
            // A node that does not have the stream refuses with `NotFound` before any other reason.
            Ok(Message::Accepted { .. } | Message::Refused(Refusal::Full | Refusal::Draining)) => Ownership::Held,
            Ok(Message::Refused(Refusal::NotFound)) => Ownership::NotHeld,
            Err(LinkError::Socket(e)) => match e.kind() {
                ErrorKind::ConnectionRefused => Ownership::NotHeld,
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::TimedOut => Ownership::NoAnswer,
                _ => Ownership::Unknown,
            },
            Err(LinkError::HandshakeTimeout(_) | LinkError::ReadTimeout(_) | LinkError::WriteTimeout(_)) => {
                Ownership::NoAnswer
            }
            Ok(_) | Err(_) => Ownership::Unknown,
        }
    }

    async fn exchange(&self, address: SocketAddr, name: &StreamName) -> Result<Message, LinkError> {
        let Link { mut reader, mut writer } = Link::connect(address, &self.secret, self.timeout).await?;
        let subscribe = Message::Subscribe {
            app: name.app().to_owned(),
            stream_id: name.stream_id().to_owned(),
            history: false,
            max_hops: 1,
        };
        writer.send(&subscribe, self.timeout).await?;
        let answer = reader.next_within(self.timeout).await?;
        // If this is not sent, the closed socket has the same effect.
        let _ = writer.send(&Message::End(EndReason::Idle), self.timeout).await;
        Ok(answer)
    }
}

impl OwnershipProbe for RelayProbe {
    fn probe<'a>(&'a self, relays: &'a [SocketAddr], name: &'a StreamName) -> ProbeFuture<'a> {
        Box::pin(async move {
            let mut result = Ownership::NoAnswer;
            for address in relays.iter().take(MAX_ADDRESSES) {
                match self.probe_address(*address, name).await {
                    Ownership::NoAnswer => {}
                    Ownership::Unknown => result = Ownership::Unknown,
                    known => return known,
                }
            }
            result
        })
    }
}

/// One private and one public address.
const MAX_ADDRESSES: usize = 2;
