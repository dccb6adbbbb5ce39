//! A player: its link follows the fan-out of a stream.

use std::sync::Arc;

use super::fanout::Fanout;
use super::link::Link;
use crate::hub::{PerStream, Stream, ViewerGuard, ViewerKind};

/// The fan-outs of all streams that are played.
pub(super) type Fanouts = PerStream<Fanout>;

/// Plays one stream until it is dropped.
#[derive(Debug)]
pub(super) struct Player {
    link: Arc<Link>,
    stream: Arc<Stream>,
    _viewer: ViewerGuard,
}

impl Player {
    /// Begins to play: header and last key group go out with the link's next write, the rest as it comes.
    pub(super) fn start(fanouts: &Fanouts, stream: Arc<Stream>, link: &Arc<Link>) -> Self {
        let fanout = fanouts.get_or_make(&stream, || Fanout::start(&stream));
        link.lock().play(Arc::clone(&fanout));
        fanout.join(link);
        Self { link: Arc::clone(link), _viewer: stream.viewer(ViewerKind::Rtmp), stream }
    }

    /// `app/stream_id`.
    pub(super) fn name(&self) -> &str {
        self.stream.name().as_str()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.link.lock().stop();
    }
}
