//! Why a stream could not be published or found.
//!
//! Plain values, for the gateways and for the cluster. Must not know the hub.

use headwater_api::StreamName;

/// Why a stream could not be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The name is in use on this node.
    #[error("stream {0} is already live")]
    AlreadyLive(StreamName),
    /// The name is in use on another node.
    #[error("stream {name} is already live on node {node}")]
    LiveOnOtherNode {
        /// The name of the stream.
        name: StreamName,
        /// The id of the node that owns it.
        node: String,
    },
    /// This node has the maximum number of streams.
    #[error("this node already carries {limit} streams")]
    TooManyStreams {
        /// The maximum number of streams.
        limit: usize,
    },
}

/// Why a stream is unavailable on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No node is known to publish the stream.
    #[error("this stream is not being published")]
    NotPublished,
    /// The node that publishes the stream serves its maximum number of other nodes.
    #[error("the stream is live, and the node that has it serves as many others as it may; try again")]
    AtCapacity,
    /// The node that has the stream, according to the registry or the configuration, does not
    /// answer or is shutting down.
    #[error("the node that may have this stream is unreachable; try again")]
    Unreachable,
    /// The registry does not answer, and this node does not know of the stream from before.
    #[error("the registry does not answer, so this node cannot look for the stream; try again")]
    RegistryUnreachable,
    /// This node looks up as many streams as it may.
    #[error("this node searches for as many streams as it may; try again")]
    TooManySearches,
}
