//! Asks a node whether it still has a stream that is said to be its own.
//!
//! A node that was killed cannot let go of its streams, and their leases last a while. Whoever wants such a name asks it: a
//! node whose relay is closed, or that proves who it is and does not know the stream, does not have it. Silence says
//! nothing: behind it may be a node that serves on.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_wire::relay::{ClusterSecret, EndReason, Message, Refusal};

use super::link::{Link, LinkError};

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// It has the stream.
    Yes,
    /// It does not.
    No,
    /// Somebody answers there, and does not say.
    Unknown,
    /// Nobody answers.
    Silent,
}

/// An answer on its way.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Holds> + Send + 'a>>;

/// Can ask other nodes.
pub trait AskOwner: std::fmt::Debug + Send + Sync {
    /// Asks the node that has these relays, best first. Ends within a few seconds.
    fn ask<'a>(&'a self, relays: &'a [SocketAddr], name: &'a StreamName) -> Asking<'a>;
}

/// Asks over the relay.
#[derive(Debug, Clone)]
pub struct Inquiry {
    secret: ClusterSecret,
    patience: Duration,
}

impl Inquiry {
    /// With the cluster's secret; waits `patience` for a connection, and as long for an answer.
    pub fn new(secret: ClusterSecret, patience: Duration) -> Self {
        Self { secret, patience }
    }

    async fn ask_one(&self, address: SocketAddr, name: &StreamName) -> Holds {
        match self.talk(address, name).await {
            // Only a stream that is there is refused for another reason.
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
        // It hears it from the closed socket too.
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

/// The private address and the public one.
const MAX_ADDRESSES: usize = 2;
