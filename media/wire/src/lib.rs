//! Media formats and protocols without I/O: bytes in, events out, time as an argument.
//!
//! RULE: no tokio, no I/O, no clock, no panic on any input; depends on no other crate of the
//! workspace.
//!
//! A publisher's bytes become [`Frame`]s, and frames become the bytes of each output protocol:
//!
//! ```text
//!   rtmp (handshake, chunk, session, ingest) --> Frame --> segment --> cmaf --> hls
//!                                                  |-----> rtp (with webrtc for signalling)
//!                                                  |-----> rtmp::mux
//!                                                  +-----> relay
//! ```
//!
//! | module | purpose |
//! | --- | --- |
//! | [`frame`] | the types that all modules share: [`Frame`], [`Track`], [`Codec`] |
//! | [`time`] | [`MediaTime`], the exact time of the media path |
//! | [`codec`] | decoder configurations of H.264, H.265, AV1, AAC and Opus |
//! | [`rtmp`] | RTMP server: messages of publishers to frames, frames to bytes for players |
//! | [`reorder`] | detects B-frames |
//! | [`segment`] | divides a stream into numbered segments, identically on every node |
//! | [`targets`] | the values that stay constant in the HLS playlists of a stream |
//! | [`cmaf`] | frames to fragmented MP4: initialization segments and parts |
//! | [`hls`] | sliding window, playlists, resource names and queries of HLS and LL-HLS |
//! | [`rtp`] | frames to RTP payloads, and a ring of recent packets for retransmissions |
//! | [`webrtc`] | STUN, SDP, DTLS ClientHello and RTCP for WebRTC viewers |
//! | [`relay`] | the encrypted protocol with which a node gets a stream from another node |
//!
//! To add a protocol, add a module that takes or produces [`Frame`]s. Bound every length and count
//! that the peer controls, and test each parser with every prefix and every flipped bit of valid
//! input; a parser of untrusted bytes also gets a target in `tests/fuzz`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cmaf;
pub mod codec;
pub mod frame;
pub mod hls;
pub mod relay;
pub mod reorder;
pub mod rtmp;
pub mod rtp;
pub mod segment;
#[cfg(test)]
mod segment_test;
pub mod targets;
pub mod time;
pub mod webrtc;

pub use frame::{AudioTrack, Codec, Frame, MAX_CONFIG_BYTES, MAX_FRAME_BYTES, MediaKind, Track, VideoTrack};
pub use time::MediaTime;
