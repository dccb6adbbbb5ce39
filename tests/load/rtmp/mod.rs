//! A lightweight RTMP client: it publishes and plays, and is cheap enough for
//! hundreds in one process.
//!
//! It trusts its peer; it is a measuring tool, not a player.

pub(crate) mod client;
pub(crate) mod player;
pub(crate) mod publisher;
mod skim;
