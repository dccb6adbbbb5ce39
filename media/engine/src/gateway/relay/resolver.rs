//! Finds the nodes that have a stream; implemented by the cluster.

use std::net::SocketAddr;
use std::pin::Pin;

use headwater_api::StreamName;

/// Relays that have a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Relay addresses to try, best first. May be this node's own.
    pub relays: Vec<SocketAddr>,
    /// Relay addresses of the owner, if `relays` belong to another edge, which may have to pull the
    /// stream first.
    pub beyond: Option<Vec<SocketAddr>>,
}

impl Located {
    /// The relays of the node that owns the stream.
    pub fn at(relays: Vec<SocketAddr>) -> Self {
        Self { relays, beyond: None }
    }
}

/// Resolves to `None` if no node is known to have the stream.
pub type Locating<'a> = Pin<Box<dyn Future<Output = Option<Located>> + Send + 'a>>;

/// Finds the nodes that have a stream.
pub trait Locate: std::fmt::Debug + Send + Sync {
    /// Finds a stream. Ends within two seconds, even if the registry is unreachable.
    fn locate<'a>(&'a self, name: &'a StreamName) -> Locating<'a>;

    /// Invalidates the cached location of this stream: its source could not be used.
    fn doubt(&self, name: &StreamName);

    /// Confirms the cached location: media arrives from there. Called about once per second.
    fn flows(&self, name: &StreamName);
}
