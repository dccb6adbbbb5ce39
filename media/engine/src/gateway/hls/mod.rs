//! HLS and LL-HLS out: frames of the hub become segments and parts, once per stream and only while somebody asks.
//!
//! ```text
//!   hub --frames--> feed (one task per watched stream) --snapshots--> Hls::playlist, Hls::resource <-- http
//! ```
//!
//! A feed starts with the first request and ends some time after the last one. RULE: knows no HTTP; requests come as
//! values, answers go as shared bytes.

mod error;
mod feed;
mod metrics;
mod server;
mod snapshot;
mod viewers;

pub use error::HlsError;
pub use metrics::Metrics;
pub use server::Hls;
pub use snapshot::Form;
