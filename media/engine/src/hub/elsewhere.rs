//! The rest of the cluster, as the hub sees it: streams that live on other nodes, and whose a name is.
//!
//! The hub knows neither: whoever assembles the engine gives it an [`Elsewhere`] and an [`Owners`]. Without them a node is
//! alone.

use std::pin::Pin;
use std::sync::Arc;

use headwater_api::StreamName;

use super::{Hub, PublishError, Stream};

/// Why a stream cannot be had here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Nobody publishes it, as far as is known.
    #[error("nobody is publishing this stream right now")]
    Unknown,
    /// The node that has it serves as many others as it may.
    #[error("the stream is live, and the node that has it serves as many others as it may; try again")]
    Full,
}

/// A stream on its way here, or why there is none.
pub type Fetching = Pin<Box<dyn Future<Output = Result<Arc<Stream>, Missing>> + Send>>;

/// A name being claimed; what comes out is dropped when the stream ends.
pub type Claiming = Pin<Box<dyn Future<Output = Result<Box<dyn Send + Sync>, PublishError>> + Send>>;

/// Fetches streams of other nodes.
pub trait Elsewhere: std::fmt::Debug + Send + Sync {
    /// Finds the stream on another node and publishes it here with [`Hub::publish_relayed`]. Many may ask at once. Ends within
    /// seconds.
    fn fetch(&self, hub: &Hub, name: &StreamName) -> Fetching;
}

/// Knows who may publish what.
pub trait Owners: std::fmt::Debug + Send + Sync {
    /// Makes this node the one owner of the stream. Ends within seconds.
    fn claim(&self, stream: &Arc<Stream>) -> Claiming;
}
