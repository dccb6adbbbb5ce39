//! Asks the nodes that watch a stream for how long its owner has been silent, and informs them when
//! the stream has moved. One short connection per node; all of them at once, up to a limit.
//!
//! Must not know who owns a stream, or what follows from the answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_wire::relay::{ClusterSecret, Message};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::gateway::relay::link::Link;

/// Connections at a time, for all streams of a failed owner together. Each takes some milliseconds,
/// or the whole timeout if the node does not answer.
const MAX_CONNECTIONS: usize = 128;

/// Connects to other nodes, with a limit; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Witnesses {
    secret: ClusterSecret,
    timeout: Duration,
    connections: Arc<Semaphore>,
}

impl Witnesses {
    /// `timeout` applies to each call.
    pub(super) fn new(secret: ClusterSecret, timeout: Duration) -> Self {
        Self { secret, timeout, connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// Returns the silence of the owner as observed by each node that watches it. Nodes that do not
    /// answer in time are left out.
    pub(super) async fn ask(self, nodes: Vec<Vec<SocketAddr>>, question: Message) -> Vec<Duration> {
        let mut silences = Vec::new();
        let on_reply = |reply| {
            if let Some(Message::Testimony(Some(silent_ms))) = reply {
                silences.push(Duration::from_millis(u64::from(silent_ms)));
            }
        };
        self.exchange_with_all(nodes, &question, on_reply).await;
        silences
    }

    /// Sends `moved` to each of these nodes. One that was not reached resolves the stream later, by
    /// itself.
    pub(super) async fn announce(self, nodes: Vec<Vec<SocketAddr>>, moved: Message) {
        self.exchange_with_all(nodes, &moved, drop).await;
    }

    async fn exchange_with_all(
        &self,
        nodes: Vec<Vec<SocketAddr>>,
        message: &Message,
        mut on_reply: impl FnMut(Option<Message>),
    ) {
        let mut exchanges = JoinSet::new();
        for relays in nodes {
            let (this, message) = (self.clone(), message.clone());
            exchanges.spawn(async move { this.exchange(&relays, &message).await });
        }
        let all = async {
            while let Some(reply) = exchanges.join_next().await {
                on_reply(reply.ok().flatten());
            }
        };
        // Replies that have arrived by then count.
        let _ = tokio::time::timeout(self.timeout, all).await;
    }

    /// Sends a message to the first of these relays that accepts a connection, and returns the
    /// reply. `None` if there is none, or the node does not know the message.
    async fn exchange(&self, relays: &[SocketAddr], message: &Message) -> Option<Message> {
        let _permit = self.connections.acquire().await.ok()?;
        for address in relays.iter().copied().take(MAX_ADDRESSES) {
            let Ok(mut link) = Link::connect(address, &self.secret, self.timeout).await else { continue };
            if !link.peer_features.has_witness() {
                return None;
            }
            link.writer.send(message, self.timeout).await.ok()?;
            return link.reader.next().await.ok();
        }
        None
    }
}

/// One private and one public address.
const MAX_ADDRESSES: usize = 2;
