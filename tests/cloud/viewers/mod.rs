//! Publishers and viewers. Each is a process or task that counts what it
//! receives and measures pauses.

mod hls;
mod publisher;
mod rtmp;
mod whep;

pub(crate) use hls::{HlsPlayers, Kind};
pub(crate) use publisher::Publisher;
pub(crate) use rtmp::RtmpPlayer;
pub(crate) use whep::WhepViewer;
