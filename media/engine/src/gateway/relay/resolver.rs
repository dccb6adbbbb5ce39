//! Finds the nodes that have a stream; implemented by the cluster.

use std::net::SocketAddr;
use std::pin::Pin;

use headwater_api::StreamName;

/// Relays that have a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLocation {
    /// Relay addresses to try, best first. May be this node's own.
    pub relays: Vec<SocketAddr>,
    /// True if each of `relays` is another node, any of which may have the stream; false if all of
    /// them belong to one node.
    pub any_of: bool,
    /// Relay addresses of the owner, if `relays` belong to another edge, which may have to pull the
    /// stream first.
    pub owner_relays: Option<Vec<SocketAddr>>,
}

impl StreamLocation {
    /// The relays of the node that owns the stream.
    pub fn direct(relays: Vec<SocketAddr>) -> Self {
        Self { relays, any_of: false, owner_relays: None }
    }

    /// The relays of several nodes, any of which may have the stream.
    pub fn any_of(relays: Vec<SocketAddr>) -> Self {
        Self { relays, any_of: true, owner_relays: None }
    }
}

/// Why the nodes that have a stream are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No node is known to have the stream.
    #[error("no node is known to have the stream")]
    NotPublished,
    /// The registry does not answer, and the owner of the stream is not known from before.
    #[error("the registry does not answer")]
    RegistryUnreachable,
}

/// Resolves to the nodes that have a stream.
pub type ResolveFuture<'a> = Pin<Box<dyn Future<Output = Result<StreamLocation, ResolveError>> + Send + 'a>>;

/// Finds the nodes that have a stream.
pub trait StreamResolver: std::fmt::Debug + Send + Sync {
    /// Finds a stream. Ends within two seconds, even if the registry is unreachable.
    fn resolve<'a>(&'a self, name: &'a StreamName) -> ResolveFuture<'a>;

    /// Invalidates the cached location of this stream: its source could not be used.
    fn invalidate(&self, name: &StreamName);

    /// Confirms the cached location: media arrives from there. Called about once per second.
    fn confirm(&self, name: &StreamName);
}
