//! Streams between nodes: a node with viewers pulls a stream from the node that holds it, once, and goes on with the same
//! viewers when that node dies.
//!
//! ```text
//!   edge                                                     origin
//!   hub asks -> publish: locate, pull  --link (sealed)-->    server: accepts, finds the stream
//!            <- frames into its own hub <-----------------   play: last key group, then each frame
//! ```
//!
//! RULE: knows `hub`, `wire::relay` and the [`Locate`] and [`AskOwner`] seams, and no other gateway; where streams live is not its business.

mod intake;
mod link;
mod locate;
mod metrics;
mod owner;
mod play;
mod publish;
#[cfg(test)]
mod relay_test;
mod secret;
mod server;
mod upstreams;

pub use locate::{Locate, Located, Locating};
pub use metrics::Metrics;
pub use owner::{AskOwner, Asking, Holds, Inquiry};
pub use publish::{Relay, Timing};
pub use secret::{SecretFileError, read_secret};
pub use server::Server;
