//! Publishers and viewers, each a process or a thread that counts what comes and how long nothing came.

mod hls;
mod publisher;
mod rtmp;
mod whep;

pub(crate) use hls::{Hls, Kind};
pub(crate) use publisher::Publisher;
pub(crate) use rtmp::Rtmp;
pub(crate) use whep::Whep;
