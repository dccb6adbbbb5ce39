//! HLS and LL-HLS out: frames of the hub become segments and parts, once per stream and only while
//! there are requests.
//!
//! ```text
//!   hub --frames--> packager task (one per requested stream)
//!                      --snapshots--> Hls::playlist, Hls::resource <-- http
//! ```
//!
//! Packaging starts with the first request and stops 45 s after the last one. RULE: knows no HTTP;
//! requests are values, responses are shared bytes.

mod audio_gap;
mod error;
mod metrics;
mod packager_task;
mod packagers;
mod silence;
mod snapshot;
mod viewers;

pub use error::HlsError;
pub use metrics::Metrics;
pub use packagers::Hls;
pub use snapshot::{PlaylistAccess, PlaylistKind};
