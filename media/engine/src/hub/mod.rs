//! The hub: live streams by name. One [`Producer`] each, any number of [`Consumer`]s.
//!
//! Frames flow from left to right; nothing flows back but a request for a key frame and the end of a stream. A writer
//! never waits: a reader that falls behind is moved to the next key frame. The last key group is kept, so that a
//! viewer starts at once. The hub must not know any protocol.

mod directory;
mod elsewhere;
mod group;
mod per_stream;
mod rendition;
mod splice;
mod stream;
#[cfg(test)]
mod stream_test;
mod wall_clock;

pub use directory::{Hub, Limits, PublishError};
pub use elsewhere::{Claiming, Elsewhere, Fetching, Missing, Owners};
pub use group::{Item, Lost};
pub use per_stream::PerStream;
pub use rendition::{TranscodeError, Transcoder};
pub use stream::{Consumer, Next, Producer, Stream, Tracks, ViewerGuard, ViewerKind};
pub use wall_clock::WallClock;
