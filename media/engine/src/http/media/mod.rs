//! Media over HTTP: HLS and LL-HLS, and WHEP. Translates between HTTP and a gateway.

mod authorize;
pub(super) mod hls;
mod stream_name;
pub(super) mod whep;
