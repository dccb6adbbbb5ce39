//! The hub: live streams by name, each with one [`Producer`] and any number of [`Consumer`]s.
//!
//! Frames flow from producer to consumers; only key frame requests and the end of a stream flow
//! back. A producer never waits: a consumer that falls behind skips to the next key frame. The last
//! GOP is kept, so that a new viewer starts at once. The hub must not know any protocol.

mod directory;
mod gop_buffer;
mod per_stream;
mod remote;
mod rendition;
mod splice;
mod stream;
#[cfg(test)]
mod stream_test;

pub use crate::node::wall_clock::WallClock;
pub use directory::{Hub, Limits, PublishError};
pub use gop_buffer::{Item, LostFrames};
pub use per_stream::PerStream;
pub use remote::{ClaimFuture, RemoteStreams, FetchFuture, FindError, StreamOwnership};
pub use rendition::{TranscodeError, Transcoder};
pub use stream::{Consumer, Next, Producer, Stream, Tracks, ViewerGuard, ViewerKind};
