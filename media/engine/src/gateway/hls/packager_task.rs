//! Packages one stream: a task reads frames from the hub and publishes a snapshot per part;
//! requests read the newest snapshot.
//!
//! ```text
//!   first request --> running --(stream ends)--> lingering --(LINGER_DURATION, or replaced)--> end
//!                        +--------(no request for IDLE_TIMEOUT)------------------------------> end
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use headwater_api::StreamName;
use headwater_wire::cmaf::{Output, Packager};
use headwater_wire::hls::{Settings, Window};
use headwater_wire::segment::Segment;
use headwater_wire::targets::Targets;
use headwater_wire::{Frame, MediaTime};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::gateway::hls::audio_gap::AudioGaps;
use crate::gateway::hls::metrics::Metrics;
use crate::gateway::hls::snapshot::Snapshot;
use crate::gateway::hls::viewers::Viewers;
use crate::hub::{Consumer, Item, Next, Stream, ViewerKind};
use crate::runtime::memfd;

/// State of one packaged stream, shared by its task and its requests.
#[derive(Debug)]
pub(crate) struct StreamPackager {
    pub(crate) name: StreamName,
    pub(crate) instance_id: u64,
    pub(crate) settings: Settings,
    pub(crate) snapshot_tx: watch::Sender<Arc<Snapshot>>,
    requests: Mutex<RequestLog>,
}

/// The time of the last request, and the recent viewers.
#[derive(Debug)]
struct RequestLog {
    last_request_at: Instant,
    viewers: Viewers,
}

impl StreamPackager {
    pub(crate) fn new(stream: &Stream, settings: Settings) -> Self {
        let snapshot_tx = watch::Sender::new(Arc::new(Snapshot::new(Window::new(settings))));
        let requests = Mutex::new(RequestLog { last_request_at: Instant::now(), viewers: Viewers::default() });
        Self { name: stream.name().clone(), instance_id: stream.instance_id(), settings, snapshot_tx, requests }
    }

    /// Records a request; `viewer` is set for playlists only.
    pub(crate) fn record_request(&self, viewer: Option<u64>) {
        let now = Instant::now();
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.last_request_at = now;
        if let Some(viewer) = viewer {
            requests.viewers.record(viewer, now);
        }
    }

    /// True if `viewer` requested a playlist recently.
    pub(crate) fn has_viewer(&self, viewer: u64) -> bool {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).viewers.contains(viewer)
    }

    /// True if there was no request for [`IDLE_TIMEOUT`].
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).last_request_at.elapsed() >= IDLE_TIMEOUT
    }

    fn count_viewers(&self) -> u64 {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).viewers.count(Instant::now())
    }

    /// Packages until the stream ends (returns true) or `should_stop` returns true (returns false).
    /// `should_stop` is called every [`POLL_INTERVAL`].
    pub(crate) async fn run(
        &self,
        stream: &Arc<Stream>,
        metrics: &Metrics,
        mut should_stop: impl FnMut() -> bool,
    ) -> bool {
        let mut packaging = Packaging::new(stream, self.settings);
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        loop {
            let changed = tokio::select! {
                item = packaging.consumer.next() => match item {
                    Some(item) => packaging.package_available(item, metrics),
                    None => {
                        packaging.finish();
                        self.snapshot_tx.send_replace(Arc::new(Snapshot::new(packaging.window)));
                        return true;
                    }
                },
                _ = tick.tick() => {
                    stream.set_viewers(ViewerKind::Hls, self.count_viewers());
                    if should_stop() {
                        stream.set_viewers(ViewerKind::Hls, 0);
                        return false;
                    }
                    false
                }
            };
            if changed {
                self.snapshot_tx.send_replace(Arc::new(Snapshot::new(packaging.window.clone())));
            }
        }
    }

    /// Keeps the last segments of an ended stream for [`LINGER_DURATION`], or until `should_stop`
    /// returns true: players are behind the end.
    pub(crate) async fn linger(&self, mut should_stop: impl FnMut() -> bool) {
        let until = Instant::now() + LINGER_DURATION;
        while Instant::now() < until && !should_stop() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// State of the task: frames in, window out.
struct Packaging {
    stream: Arc<Stream>,
    consumer: Consumer,
    packager: Packager,
    audio_gaps: AudioGaps,
    silence: Vec<(Frame, Segment)>,
    window: Window,
    outputs: Vec<Output>,
    part_duration: MediaTime,
    targets: Targets,
}

impl Packaging {
    fn new(stream: &Arc<Stream>, settings: Settings) -> Self {
        let targets = Targets::new(settings.part_duration);
        Self {
            stream: Arc::clone(stream),
            consumer: stream.consumer_with_history(),
            packager: Packager::new(targets),
            audio_gaps: AudioGaps::default(),
            silence: Vec::new(),
            window: Window::new(settings),
            outputs: Vec::new(),
            part_duration: settings.part_duration,
            targets,
        }
    }

    /// Packages `first` and all available items after it. True if the playlist changed.
    fn package_available(&mut self, first: Item, metrics: &Metrics) -> bool {
        let mut changed = false;
        self.announce_tracks();
        let mut next = Next::Item(first);
        while let Next::Item(item) = next {
            if let Some(lost) = self.consumer.take_lost() {
                metrics.lost_frames.inc_by(lost.frames);
                self.abandon_segment();
            }
            if item.generation != self.window.generation() {
                changed |= self.begin_generation(item.generation);
            } else if item.after_gap {
                self.abandon_segment();
            }
            if item.targets != self.targets {
                self.set_targets(item.targets);
            }
            self.push(&item.in_generation_time(), item.segment);
            next = self.consumer.try_next();
        }
        self.apply_outputs() || changed
    }

    /// Starts another generation of the stream, with new timestamps and segment numbers. True if
    /// the playlist changed.
    fn begin_generation(&mut self, generation: u64) -> bool {
        self.packager.finish(&mut self.outputs);
        let changed = self.apply_outputs();
        self.window.begin_generation(generation);
        self.targets = Targets::new(self.part_duration);
        self.packager = Packager::new(self.targets);
        self.audio_gaps = AudioGaps::default();
        self.announce_tracks();
        changed
    }

    fn announce_tracks(&mut self) {
        let tracks = self.stream.tracks();
        let tracks = tracks.borrow();
        self.packager.announce(tracks.video.as_ref(), tracks.audio.as_ref());
        self.audio_gaps.announce(tracks.audio.as_ref());
    }

    fn push(&mut self, frame: &Frame, segment: Segment) {
        self.audio_gaps.set_longest_segment(self.targets.longest_segment() + self.targets.part);
        let is_new = self.audio_gaps.on_frame(frame, segment, &mut self.silence);
        for (silent, segment) in self.silence.drain(..) {
            self.packager.push(&silent, segment, &mut self.outputs);
        }
        if is_new {
            self.packager.push(frame, segment, &mut self.outputs);
        }
    }

    fn abandon_segment(&mut self) {
        self.packager.abandon(&mut self.outputs);
        self.audio_gaps.reset();
    }

    /// Applies the constants of the stream from this frame on.
    fn set_targets(&mut self, targets: Targets) {
        if let Some(secs) = targets.segment_secs.filter(|_| self.targets.independent && !targets.independent) {
            let message = format!(
                "There was no key frame for more than {secs} s, so HLS viewers who join wait for one. \
                 Set the encoder's key frame interval to 2 seconds."
            );
            self.stream.add_notice("key_frame_interval", &message);
        }
        self.targets = targets;
        self.packager.set_targets(targets);
        self.window.set_targets(targets);
    }

    fn finish(&mut self) {
        self.packager.finish(&mut self.outputs);
        self.apply_outputs();
        self.window.end();
    }

    fn apply_outputs(&mut self) -> bool {
        let mut changed = false;
        for output in self.outputs.drain(..) {
            match &output {
                Output::Refused(e) => {
                    self.stream
                        .add_notice("hls_track", &format!("A track of this stream cannot be played over HLS: {e}."));
                }
                Output::TooLong => self.stream.add_notice(
                    "hls_segment",
                    "A segment has more than 64 MiB or lasts longer than a minute, so HLS viewers miss the rest of it. \
                     Set the encoder's key frame interval to 2 seconds, or lower its bit rate.",
                ),
                _ => {}
            }
            let is_end = matches!(output, Output::End { .. });
            changed |= self.window.apply(output);
            if is_end {
                self.window.gather_newest(store_in_memfd);
            }
        }
        changed
    }
}

/// Copies a segment to a memfd, from which the kernel sends it without a copy. `None` if that
/// fails, such as without a free file descriptor: then the bytes are copied for every viewer.
fn store_in_memfd(pieces: &[Bytes]) -> Option<Bytes> {
    memfd::store(pieces).inspect_err(|err| log::debug!(err:%; "could not store a segment in a memfd")).ok()
}

/// How often the task counts viewers and checks whether to stop.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Packaging stops after this duration without a request. No player waits longer between playlists.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// How long the end of a stream can be fetched. A player is at most a few target durations behind.
const LINGER_DURATION: Duration = Duration::from_secs(30);
