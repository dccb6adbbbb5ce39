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
mod failed_lookups;
mod handshakes;
mod ingest;
mod link;
mod metrics;
mod ownership;
#[cfg(test)]
mod relay_test;
mod resolver;
#[cfg(test)]
mod search_test;
mod secret;
mod served_stream;
mod server;
mod upstreams;

pub use client::{RelayClient, Timing};
pub use metrics::Metrics;
pub use ownership::{Ownership, OwnershipProbe, ProbeFuture, RelayProbe};
pub use resolver::{ResolveError, ResolveFuture, StreamLocation, StreamResolver};
pub use secret::{SecretFileError, read_secret};
pub use server::Server;
