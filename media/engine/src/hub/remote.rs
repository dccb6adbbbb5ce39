//! The hub's interface to the rest of the cluster: streams of other nodes, and the ownership
//! of stream names.
//!
//! The assembly of the engine supplies a [`RemoteStreams`] and a [`StreamOwnership`]. Without them
//! the node is standalone.

use std::pin::Pin;
use std::sync::Arc;

use headwater_api::StreamName;

use crate::hub::{Hub, PublishError, Stream};

/// Why a stream is unavailable on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No node is known to publish the stream.
    #[error("this stream is not being published")]
    NotPublished,
    /// The node that publishes the stream serves its maximum number of other nodes.
    #[error("the stream is live, and the node that has it serves as many others as it may; try again")]
    AtCapacity,
}

/// A future that resolves to the relayed stream.
pub type FetchFuture = Pin<Box<dyn Future<Output = Result<Arc<Stream>, FindError>> + Send>>;

/// A future that resolves to a claim of a stream name, which is dropped when the stream ends.
pub type ClaimFuture = Pin<Box<dyn Future<Output = Result<Box<dyn Send + Sync>, PublishError>> + Send>>;

/// Fetches streams from other nodes.
pub trait RemoteStreams: std::fmt::Debug + Send + Sync {
    /// Finds the stream on another node and publishes it on this node with
    /// [`Hub::publish_relayed`]. May be called concurrently. Completes within seconds.
    fn fetch(&self, hub: &Hub, name: &StreamName) -> FetchFuture;
}

/// Ensures that at most one node of the cluster publishes a stream.
pub trait StreamOwnership: std::fmt::Debug + Send + Sync {
    /// Makes this node the only owner of the stream's name. Completes within seconds.
    fn claim(&self, stream: &Arc<Stream>) -> ClaimFuture;
}
