//! Protocols: bytes to frames (`publish`), frames to bytes (`play`). One folder per protocol; no
//! gateway uses another.

pub mod hls;
pub mod relay;
pub mod rtmp;
pub mod webrtc;
