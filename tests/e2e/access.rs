//! Who may publish and watch: every protocol, on the node that has the stream and on one that
//! relays it, with every kind of credentials.

mod cluster;
mod ends;
pub(crate) mod ffmpeg;
mod hash;
mod hls;
mod issuer;
mod matrix;
mod names;
pub(crate) mod nodes;
mod outage;
mod protocol;
mod rotation;
mod tls_forwarder;
mod tokens;
