//! A player: attaches its link to the fan-out of a stream.

use std::sync::Arc;

use super::fanout::Fanout;
use super::link::Link;
use crate::hub::{PerStream, Stream, ViewerGuard, ViewerKind};

/// The fan-outs of all streams that have players.
#[derive(Debug)]
pub(super) struct Fanouts {
    by_stream: PerStream<Fanout>,
    merge_audio: bool,
}

impl Fanouts {
    /// No fan-outs yet; `merge_audio` is the setting of this name, see
    /// [`Rtmp`](headwater_api::config::Rtmp).
    pub(super) fn new(merge_audio: bool) -> Self {
        Self { by_stream: PerStream::default(), merge_audio }
    }

    /// The fan-out of this stream, which is started if there is none.
    fn get_or_start(&self, stream: &Arc<Stream>) -> Arc<Fanout> {
        self.by_stream.get_or_create(stream, || Fanout::start(stream, self.merge_audio))
    }
}

/// Plays one stream until it is dropped.
#[derive(Debug)]
pub(super) struct Player {
    link: Arc<Link>,
    stream: Arc<Stream>,
    /// The fan-out exists while the stream has players.
    _fanout: Arc<Fanout>,
    _viewer: ViewerGuard,
}

impl Player {
    /// Starts to play: the link's next write sends the header and the last GOP, later frames follow
    /// as they arrive.
    pub(super) fn start(fanouts: &Fanouts, stream: Arc<Stream>, link: &Arc<Link>) -> Self {
        let fanout = fanouts.get_or_start(&stream);
        link.lock().play(Arc::clone(fanout.ring()));
        fanout.join(link);
        let viewer = stream.count_viewer(ViewerKind::Rtmp);
        Self { link: Arc::clone(link), stream, _fanout: fanout, _viewer: viewer }
    }

    /// `app/stream_id`.
    pub(super) fn name(&self) -> &str {
        self.stream.name().as_str()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.link.lock().stop_playing();
    }
}
