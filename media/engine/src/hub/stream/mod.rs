//! One live stream: its shared state, and the two handles to it.
//!
//! ```text
//!   Producer --frames--> Stream (GOP buffer) --frames--> Consumer, Consumer ...
//!            <--key frame requests, revocation--
//! ```
//!
//! RULE: knows no protocol and no other stream. `stream` knows neither `producer` nor `consumer`.

mod bitrate;
mod consumer;
mod producer;
#[expect(clippy::module_inception, reason = "the folder is named after its main type")]
mod stream;

pub use consumer::{Consumer, Next};
pub use producer::Producer;
pub(super) use stream::RELAY;
pub use stream::{Stream, Tracks, ViewerGuard, ViewerKind};
