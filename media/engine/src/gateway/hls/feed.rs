//! Packages one stream: a task reads the hub and publishes a snapshot per part; requests read the newest one.
//!
//! ```text
//!   first request --> reading --(stream ends)--> lingering --(LINGER, or replaced)--> gone
//!                        +-------(no request for IDLE)------------------------------> gone
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use headwater_api::StreamName;
use headwater_wire::cmaf::{Output, Packager};
use headwater_wire::hls::{Settings, Window};
use tokio::sync::watch;
use tokio::time::Instant;

use super::metrics::Metrics;
use super::snapshot::Snapshot;
use super::viewers::Viewers;
use crate::hub::{Consumer, Item, Next, Stream, ViewerKind};
use crate::memory_file;

/// What requests and the task of one stream share.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) name: StreamName,
    pub(super) epoch: u64,
    pub(super) settings: Settings,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    asked: Mutex<Asked>,
}

/// Who asked, and when last.
#[derive(Debug)]
struct Asked {
    last: Instant,
    viewers: Viewers,
}

impl Feed {
    pub(super) fn new(stream: &Stream, settings: Settings) -> Self {
        let snapshots = watch::Sender::new(Arc::new(Snapshot::new(Window::new(settings))));
        let asked = Mutex::new(Asked { last: Instant::now(), viewers: Viewers::default() });
        Self { name: stream.name().clone(), epoch: stream.epoch(), settings, snapshots, asked }
    }

    /// Something was asked for; `viewer` is set if it was a playlist.
    pub(super) fn note(&self, viewer: Option<u64>) {
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.last = now;
        if let Some(who) = viewer {
            asked.viewers.note(who, now);
        }
    }

    /// True for a player that was here lately.
    pub(super) fn knows(&self, viewer: u64) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).viewers.knows(viewer)
    }

    /// True if nothing was asked for in a long time.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).last.elapsed() >= IDLE
    }

    fn count_viewers(&self) -> u64 {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).viewers.count(Instant::now())
    }

    /// Packages until the stream ends (true) or `may_end` says yes (false); it is asked every [`TICK`].
    pub(super) async fn read(
        &self,
        stream: &Arc<Stream>,
        metrics: &Metrics,
        mut may_end: impl FnMut() -> bool,
    ) -> bool {
        let mut reading = Reading::new(stream, self.settings);
        let mut tick = tokio::time::interval(TICK);
        loop {
            let changed = tokio::select! {
                item = reading.consumer.next() => match item {
                    Some(item) => reading.take_all(item, metrics),
                    None => {
                        reading.finish();
                        self.snapshots.send_replace(Arc::new(Snapshot::new(reading.window)));
                        return true;
                    }
                },
                _ = tick.tick() => {
                    stream.set_viewers(ViewerKind::Hls, self.count_viewers());
                    if may_end() {
                        stream.set_viewers(ViewerKind::Hls, 0);
                        return false;
                    }
                    false
                }
            };
            if changed {
                self.snapshots.send_replace(Arc::new(Snapshot::new(reading.window.clone())));
            }
        }
    }

    /// Keeps the last segments of an ended stream for those who are not there yet.
    pub(super) async fn linger(&self, mut may_end: impl FnMut() -> bool) {
        let until = Instant::now() + LINGER;
        while Instant::now() < until && !may_end() {
            tokio::time::sleep(TICK).await;
        }
    }
}

/// The state of the task: frames in, window out.
struct Reading {
    stream: Arc<Stream>,
    consumer: Consumer,
    packager: Packager,
    window: Window,
    outputs: Vec<Output>,
    settings: Settings,
}

impl Reading {
    fn new(stream: &Arc<Stream>, settings: Settings) -> Self {
        Self {
            stream: Arc::clone(stream),
            consumer: stream.consumer_of_history(),
            packager: Packager::new(settings.part),
            window: Window::new(settings),
            outputs: Vec::new(),
            settings,
        }
    }

    /// Takes `first` and all that is there after it. True if viewers can see a difference.
    fn take_all(&mut self, first: Item, metrics: &Metrics) -> bool {
        let mut changed = false;
        {
            let tracks = self.stream.tracks();
            let tracks = tracks.borrow();
            self.packager.announce(tracks.video.as_ref(), tracks.audio.as_ref());
        }
        let mut next = Next::Item(first);
        while let Next::Item(item) = next {
            if let Some(lost) = self.consumer.take_lost() {
                metrics.lost_frames.inc_by(lost.frames);
                self.packager.abandon(&mut self.outputs);
            }
            if item.life != self.window.life() {
                changed |= self.begin_life(item.life);
            } else if item.after_gap {
                self.packager.abandon(&mut self.outputs);
            }
            self.packager.push(&item.in_its_life(), item.segment, &mut self.outputs);
            next = self.consumer.try_next();
        }
        self.apply() || changed
    }

    /// The stream goes on from another node, with other times and numbers.
    fn begin_life(&mut self, life: u64) -> bool {
        self.packager.finish(&mut self.outputs);
        let changed = self.apply();
        self.window.begin_life(life);
        self.packager = Packager::new(self.settings.part);
        let tracks = self.stream.tracks();
        let tracks = tracks.borrow();
        self.packager.announce(tracks.video.as_ref(), tracks.audio.as_ref());
        changed
    }

    fn finish(&mut self) {
        self.packager.finish(&mut self.outputs);
        self.apply();
        self.window.end();
    }

    fn apply(&mut self) -> bool {
        let mut changed = false;
        for output in self.outputs.drain(..) {
            match &output {
                Output::Refused(e) => {
                    self.stream.notice("hls_track", &format!("A track of this stream cannot be played over HLS: {e}."));
                }
                Output::TooLong => self.stream.notice(
                    "key_frame_interval",
                    "There was no key frame for a minute. Set the encoder's key frame interval to 2 seconds.",
                ),
                _ => {}
            }
            let is_end = matches!(output, Output::End);
            changed |= self.window.apply(output);
            if is_end {
                self.window.gather_newest(in_a_file);
            }
        }
        changed
    }
}

/// The same bytes where the kernel can send them from; without a file descriptor left they are copied for every viewer.
fn in_a_file(pieces: &[Bytes]) -> Option<Bytes> {
    memory_file::store(pieces).inspect_err(|err| log::debug!(err:%; "no memory file for a segment")).ok()
}

/// How often the task looks after viewers and idleness.
const TICK: Duration = Duration::from_secs(2);
/// A feed ends so long after the last request: longer than any player pauses between two playlists.
const IDLE: Duration = Duration::from_secs(45);
/// The end of a stream can be fetched for so long: a player is at most a few target durations behind.
const LINGER: Duration = Duration::from_secs(30);
