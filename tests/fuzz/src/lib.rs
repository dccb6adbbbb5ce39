//! The fuzz targets: one function per parser, `run(input)`, which panics if the input is a finding.
//!
//! Two programs call them: `fuzz_targets` (libFuzzer, with sanitizers) and the test `fuzz_seeds` of
//! the workspace, which includes this file. It may therefore use only the dependencies that both
//! have, and nothing of libFuzzer.

pub mod client_hello;
pub mod cmaf;
pub mod codec_headers;
pub mod hls_names;
pub mod relay;
pub mod rtcp;
pub mod rtmp_amf0;
pub mod rtmp_chunk;
pub mod rtmp_handshake;
pub mod rtmp_session;
pub mod rtmp_tag;
pub mod rtp;
pub mod sdp_offer;
pub mod stun;
