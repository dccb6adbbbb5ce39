//! Formats and protocols as values: bytes in, events out, time as an argument.
//!
//! RULE: no tokio, no I/O, no clock, no panic on any input; knows no other room of ours.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cmaf;
pub mod codec;
pub mod frame;
pub mod hls;
pub mod relay;
pub mod rtmp;
pub mod rtp;
pub mod segment;
pub mod time;
pub mod webrtc;

pub use frame::{AudioTrack, Codec, Frame, MediaKind, Track, VideoTrack};
pub use time::MediaTime;
