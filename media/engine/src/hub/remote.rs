//! The hub's interface to the rest of the cluster: streams of other nodes, and the ownership
//! of stream names.
//!
//! The assembly of the engine supplies a [`RemoteStreams`] and a [`StreamOwnership`]. Without them
//! the node is standalone.

use std::pin::Pin;
use std::sync::Arc;

use headwater_api::StreamName;

use crate::hub::error::{FindError, PublishError};
use crate::hub::relayed::RelayedStreams;
use crate::hub::stream::Stream;

/// A future that resolves to the relayed stream.
pub type FetchFuture = Pin<Box<dyn Future<Output = Result<Arc<Stream>, FindError>> + Send>>;

/// A future that resolves to a claim of a stream name, which is dropped when the stream ends.
pub type ClaimFuture = Pin<Box<dyn Future<Output = Result<Box<dyn Send + Sync>, PublishError>> + Send>>;

/// Fetches streams from other nodes.
pub trait RemoteStreams: std::fmt::Debug + Send + Sync {
    /// Finds the stream on another node and publishes it in `relayed`. May be called concurrently.
    /// Completes within seconds.
    fn fetch(&self, relayed: &RelayedStreams, name: &StreamName) -> FetchFuture;
}

/// Ensures that at most one node of the cluster publishes a stream.
pub trait StreamOwnership: std::fmt::Debug + Send + Sync {
    /// Makes this node the only owner of the stream's name. Completes within seconds.
    fn claim(&self, stream: &Arc<Stream>) -> ClaimFuture;
}
