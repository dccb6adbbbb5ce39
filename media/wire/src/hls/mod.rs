//! HLS and LL-HLS as values: the window of segments, playlists as text, names and queries (RFC 8216bis, draft 15).
//!
//! Parts go in ([`crate::cmaf::Packager`]), text and shared bytes come out. Who asks, and who waits, is not known here.

mod date;
mod playlist;
mod query;
mod resource;
mod window;
#[cfg(test)]
mod window_test;

pub use query::{QueryError, Reload};
pub use resource::Resource;
pub use window::{Found, Readiness, Segment, Settings, Window};
