//! Publishers and viewers. Each is a process or task that counts what it
//! receives and measures pauses.

mod attempts;
mod audience;
mod hls;
mod low_latency;
mod publisher;
mod rtmp;
mod whep;

pub(crate) use audience::Audience;
pub(crate) use hls::{HlsPlayers, Kind};
pub(crate) use publisher::Publisher;
pub(crate) use rtmp::RtmpPlayer;
pub(crate) use whep::WhepViewer;
