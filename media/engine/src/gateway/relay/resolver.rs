//! Finds the nodes that have a stream; implemented by the cluster.

use std::net::SocketAddr;
use std::pin::Pin;

use headwater_api::StreamName;

/// Relays that have a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLocation {
    /// Relay addresses to try, best first. May be this node's own.
    pub relays: Vec<SocketAddr>,
    /// Relay addresses of the owner, if `relays` belong to another edge, which may have to pull the
    /// stream first.
    pub owner_relays: Option<Vec<SocketAddr>>,
}

impl StreamLocation {
    /// The relays of the node that owns the stream.
    pub fn direct(relays: Vec<SocketAddr>) -> Self {
        Self { relays, owner_relays: None }
    }
}

/// Resolves to `None` if no node is known to have the stream.
pub type ResolveFuture<'a> = Pin<Box<dyn Future<Output = Option<StreamLocation>> + Send + 'a>>;

/// Finds the nodes that have a stream.
pub trait StreamResolver: std::fmt::Debug + Send + Sync {
    /// Finds a stream. Ends within two seconds, even if the registry is unreachable.
    fn resolve<'a>(&'a self, name: &'a StreamName) -> ResolveFuture<'a>;

    /// Invalidates the cached location of this stream: its source could not be used.
    fn invalidate(&self, name: &StreamName);

    /// Confirms the cached location: media arrives from there. Called about once per second.
    fn confirm(&self, name: &StreamName);
}
