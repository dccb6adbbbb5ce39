//! Probes whether a node still has a stream that it owns according to the registry.
//!
//! A killed node cannot release its streams, and their leases last a while. Before a name is taken
//! over, the owner is probed: a node whose relay port is closed, or that authenticates itself and
//! does not know the stream, does not have it. No answer proves nothing: the node may still serve.
//! Then the nodes that watch the stream are asked (`witnesses.rs`).

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::documents::NodeIncarnation;
use headwater_wire::relay::{ClusterSecret, EndReason, Message, Owner, Refusal};

use tokio_util::task::AbortOnDropHandle;

use crate::gateway::relay::link::{Link, LinkError};
use crate::gateway::relay::witnesses::Witnesses;

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

/// Resolves to the durations for which the owner has been silent, one per node that watches the
/// stream.
pub type TestimonyFuture<'a> = Pin<Box<dyn Future<Output = Vec<Duration>> + Send + 'a>>;

/// Resolves when the nodes have been informed, or could not be.
pub type AnnounceFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Probes the owners of streams, and asks the nodes that watch them.
pub trait OwnershipProbe: std::fmt::Debug + Send + Sync {
    /// Probes the node with these relay addresses, best first. Ends within two seconds, and within
    /// one if there is no answer.
    fn probe<'a>(&'a self, relays: &'a [SocketAddr], name: &'a StreamName) -> ProbeFuture<'a>;

    /// Asks the nodes with these relay addresses for how long they have received nothing from the
    /// owner of the stream. Nodes that do not answer, do not prove the cluster secret or do not
    /// watch the stream are left out. Ends within a second.
    fn ask_witnesses<'a>(
        &'a self,
        witnesses: &'a [Vec<SocketAddr>],
        name: &'a StreamName,
        owner: &'a NodeIncarnation,
    ) -> TestimonyFuture<'a>;

    /// Informs the nodes with these relay addresses that this node owns the stream now. Ends within
    /// a second.
    fn announce_move<'a>(&'a self, witnesses: &'a [Vec<SocketAddr>], name: &'a StreamName) -> AnnounceFuture<'a>;
}

/// Probes over the relay protocol.
#[derive(Debug, Clone)]
pub struct RelayProbe {
    secret: ClusterSecret,
    timeout: Duration,
    witnesses: Witnesses,
}

impl RelayProbe {
    /// `timeout` applies to a connection, and again to the answer.
    pub fn new(secret: ClusterSecret, timeout: Duration) -> Self {
        Self { witnesses: Witnesses::new(secret.clone(), timeout), secret, timeout }
    }

    /// Probes all addresses at once. The first address that gives a conclusive answer decides.
    async fn probe_addresses(&self, relays: &[SocketAddr], name: &StreamName) -> Ownership {
        let spawn_probe = |address: SocketAddr| {
            let (this, name) = (self.clone(), name.clone());
            AbortOnDropHandle::new(tokio::spawn(async move { this.probe_address(address, &name).await }))
        };
        let probes: Vec<_> = relays.iter().copied().take(MAX_ADDRESSES).map(spawn_probe).collect();
        let mut result = Ownership::NoAnswer;
        for probe in probes {
            match probe.await {
                Ok(Ownership::NoAnswer) | Err(_) => {}
                Ok(Ownership::Unknown) => result = Ownership::Unknown,
                Ok(conclusive) => return conclusive,
            }
        }
        result
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
            // The kernel accepts connections for a process that is stopped.
            Err(LinkError::HandshakeTimeout(_)) => Ownership::NoAnswer,
            // Also if there was no answer after the handshake: the process runs.
            Ok(_) | Err(_) => Ownership::Unknown,
        }
    }

    async fn exchange(&self, address: SocketAddr, name: &StreamName) -> Result<Message, LinkError> {
        let Link { mut reader, mut writer, .. } = Link::connect(address, &self.secret, self.timeout).await?;
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
        Box::pin(self.probe_addresses(relays, name))
    }

    fn ask_witnesses<'a>(
        &'a self,
        witnesses: &'a [Vec<SocketAddr>],
        name: &'a StreamName,
        owner: &'a NodeIncarnation,
    ) -> TestimonyFuture<'a> {
        let question = Message::AskWitness {
            app: name.app().to_owned(),
            stream_id: name.stream_id().to_owned(),
            owner: Owner { node: owner.node.clone(), boot_epoch: owner.epoch.0 },
        };
        Box::pin(self.witnesses.clone().ask(witnesses.to_vec(), question))
    }

    fn announce_move<'a>(&'a self, witnesses: &'a [Vec<SocketAddr>], name: &'a StreamName) -> AnnounceFuture<'a> {
        let moved = Message::Moved { app: name.app().to_owned(), stream_id: name.stream_id().to_owned() };
        Box::pin(self.witnesses.clone().announce(witnesses.to_vec(), moved))
    }
}

/// One private and one public address.
const MAX_ADDRESSES: usize = 2;
