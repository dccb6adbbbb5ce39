//! The question that this gateway cannot answer itself: where does a stream live?

use std::net::SocketAddr;
use std::pin::Pin;

use headwater_api::StreamName;

/// Where a stream can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Relays to try, best first. May be this node's own.
    pub relays: Vec<SocketAddr>,
    /// Set if they stand between this node and the one that holds the stream, and may have to fetch it first: the relays of that
    /// one.
    pub beyond: Option<Vec<SocketAddr>>,
}

impl Located {
    /// At the node that holds it.
    pub fn at(relays: Vec<SocketAddr>) -> Self {
        Self { relays, beyond: None }
    }
}

/// An answer on its way; `None`: nobody holds it.
pub type Locating<'a> = Pin<Box<dyn Future<Output = Option<Located>> + Send + 'a>>;

/// Knows where streams live.
pub trait Locate: std::fmt::Debug + Send + Sync {
    /// Looks for a stream. Ends within a second or two, whatever is away.
    fn locate<'a>(&'a self, name: &'a StreamName) -> Locating<'a>;

    /// The last answer for this stream did not help: look anew.
    fn doubt(&self, name: &StreamName);

    /// The stream comes from where the last answer said. Told every second or so.
    fn flows(&self, name: &StreamName);
}
