//! A light RTMP client: enough to publish and to play, cheap enough for hundreds in one process.
//!
//! It trusts its peer and its user; it is a measuring tool, not a player.

pub(crate) mod client;
pub(crate) mod player;
pub(crate) mod publisher;
mod skim;
