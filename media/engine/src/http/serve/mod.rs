//! The web server itself: listeners, connections with their time-outs, and the fast path of HLS
//! requests.
//!
//! ```text
//!   listener --> connection --fast_path--> media::hls
//!                     '-------service----> router --> media, rest, pages
//! ```

pub(super) mod body;
pub(super) mod client;
pub(super) mod connection;
pub(super) mod cors;
pub(super) mod fast_path;
pub(super) mod host;
pub(super) mod listener;
pub(super) mod metrics;
pub(super) mod router;
pub(super) mod sendfile;
pub(super) mod service;
pub(super) mod strict_heads;
pub(super) mod timeout;
