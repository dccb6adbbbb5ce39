//! The hub: live streams by name, each with one [`Producer`] and any number of [`Consumer`]s.
//!
//! Frames flow from producer to consumers; only key frame requests and the end of a stream flow
//! back. A producer never waits: a consumer that falls behind skips to the next key frame. The last
//! GOP is kept, so that a new viewer starts at once. The hub must not know any protocol.

mod directory;
mod error;
mod gop_buffer;
mod limits;
mod per_stream;
mod relayed;
mod remote;
mod rendition;
mod splice;
mod stream;
mod stream_table;
#[cfg(test)]
mod stream_test;

pub use directory::Hub;
pub use error::{FindError, PublishError};
pub use gop_buffer::{Item, LostFrames};
pub use limits::Limits;
pub use per_stream::PerStream;
pub use relayed::RelayedStreams;
pub use remote::{ClaimFuture, FetchFuture, RemoteStreams, StreamOwnership};
pub use rendition::{TranscodeError, Transcoder};
pub use stream::{Consumer, Next, Producer, Stream, Tracks, ViewerGuard, ViewerKind};
