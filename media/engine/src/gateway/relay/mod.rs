//! Streams between nodes: a node with viewers pulls a stream once from the node that owns it. If
//! that node fails, the pull continues from another source with the same viewers.
//!
//! ```text
//!   edge                                                    origin
//!   hub -> client: resolve, connect  --link (encrypted)-->  server: accepts, finds the stream
//!   hub <- ingest: frames  <------------------------------  served_stream: last GOP, then frames
//! ```
//!
//! RULE: knows `hub`, `wire::relay`, and the traits [`StreamResolver`] and [`OwnershipProbe`], and
//! no other gateway. Which node owns a stream is the cluster's concern.

mod client;
mod disconnect;
mod failed_lookups;
mod handshakes;
mod ingest;
mod link;
mod metrics;
mod owner_check;
mod owner_watch;
mod ownership;
#[cfg(test)]
mod peers_test;
mod pull;
mod pulls;
#[cfg(test)]
mod relay_test;
mod resolver;
mod search;
#[cfg(test)]
mod search_test;
mod secret;
mod served_stream;
mod server;
mod timing;
mod upstreams;
#[cfg(test)]
mod witness_test;
mod witnesses;

pub use client::RelayClient;
pub use metrics::Metrics;
pub use ownership::{AnnounceFuture, Ownership, OwnershipProbe, ProbeFuture, RelayProbe, TestimonyFuture};
pub use resolver::{ResolveError, ResolveFuture, StreamLocation, StreamResolver};
pub use secret::{SecretFileError, read_secret};
pub use server::Server;
pub use timing::Timing;
