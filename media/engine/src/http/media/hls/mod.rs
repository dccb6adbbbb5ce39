//! HLS and LL-HLS over HTTP: path and query in, shared bytes out.
//!
//! | path | content |
//! | --- | --- |
//! | `/APP/streams/ID.m3u8`, `/APP/streams/ID/playlist.m3u8` | media playlist |
//! | `/APP/streams/ID_adaptive.m3u8` | multivariant playlist |
//! | `/APP/streams/ID/STARTED_AT_MS/NAME` | initialization segment, segment or part (`wire::hls::Resource`) |
//!
//! Of a stream under a play policy, the first two need a session or a token, and the last one a
//! signature ([`find`](find::find)).
//!
//! A request arrives in one of three ways. Each makes it an [`HlsRequest`](request::HlsRequest),
//! which parses the path once, and all lead to [`find`](find::find).
//!
//! ```text
//!   serve::fast_path: bytes of a connection --------------------+
//!   serve::service: hyper, path without percent-encoding --+    +--> find
//!   serve::router: hyper, every other path, routes --------+--> response
//! ```

pub(in crate::http) mod find;
pub(in crate::http) mod path;
#[cfg(test)]
mod protected_test;
pub(in crate::http) mod request;
pub(in crate::http) mod response;
mod routes;
pub(in crate::http) mod viewer_id;

pub(in crate::http) use routes::routes;
