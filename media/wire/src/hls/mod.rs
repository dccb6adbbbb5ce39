//! HLS and LL-HLS: the sliding window of segments, playlist text, resource names and query
//! parameters (RFC 8216bis, draft 15).
//!
//! The input is the output of [`crate::cmaf::Packager`]; the output is playlist text and shared
//! bytes. The module knows nothing of HTTP, viewers or waiting requests.

#[cfg(test)]
mod constancy_test;
mod date;
mod playlist;
mod query;
mod resource;
mod window;
#[cfg(test)]
mod window_test;

pub use query::{QueryError, Reload};
pub use resource::Resource;
pub use window::{Lookup, Readiness, Segment, Settings, Window};
