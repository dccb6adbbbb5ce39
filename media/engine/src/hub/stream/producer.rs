//! The writing end of a stream.
//!
//! A gateway, the relay or a transcoder passes frames in; they enter the GOP buffer of the stream,
//! and its consumers wake. Takes one short lock per frame and never waits. Must not know who reads.

use std::sync::Arc;

use headwater_api::StreamName;
use headwater_wire::reorder::ReorderDetector;
use headwater_wire::segment::{Segment, Segmenter, first_segment_number};
use headwater_wire::targets::Targets;
use headwater_wire::{Frame, MediaKind, MediaTime, Track};

use crate::hub::error::PublishError;
use crate::hub::gop_buffer::Item;
use crate::hub::limits::Limits;
use crate::hub::splice::Splice;
use crate::hub::stream::stream::{Stream, Tracks};
use crate::hub::stream_table::{StreamTable, TableEntry};

/// The writing end of a stream. Dropping it ends the stream for every
/// [`Consumer`](crate::hub::Consumer).
pub struct Producer {
    stream: Arc<Stream>,
    /// The current value of [`Stream::tracks`], which only the producer changes.
    tracks: Tracks,
    reorder: ReorderDetector,
    segmenter: Segmenter,
    splice: Splice,
    claim: Option<Box<dyn Send + Sync>>,
    /// The entry of the stream in a table, if it is in one.
    table_entry: Option<TableEntry>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("stream", self.stream.name()).finish_non_exhaustive()
    }
}

impl Producer {
    /// Creates the producer of `stream`. Dropping it removes `table_entry`.
    pub(in crate::hub) fn new(stream: Arc<Stream>, limits: &Limits, table_entry: Option<TableEntry>) -> Self {
        let first_number = first_segment_number(stream.started_at_ms());
        let segmenter = Segmenter::with_first_number(first_number, limits.segment_duration, limits.part_duration);
        let splice = Splice::new(stream.started_at_ms());
        let (tracks, reorder) = (Tracks::default(), ReorderDetector::default());
        Self { stream, tracks, reorder, segmenter, splice, claim: None, table_entry }
    }

    /// Creates a stream in `table`, and its producer. `generation` is set if the stream is
    /// published on another node.
    ///
    /// # Errors
    /// Fails if the name is in use or the table is full.
    pub(in crate::hub) fn publish(
        table: &Arc<StreamTable>,
        name: &StreamName,
        protocol: &'static str,
        generation: Option<u64>,
    ) -> Result<Self, PublishError> {
        let stream = table.insert(name, protocol, generation)?;
        let entry = TableEntry::new(table, &stream);
        Ok(Self::new(stream, table.limits(), Some(entry)))
    }

    /// Drops `claim` when the stream ends.
    pub(in crate::hub) fn set_claim(&mut self, claim: Box<dyn Send + Sync>) {
        self.claim = Some(claim);
    }

    /// Returns true once the stream was revoked in favour of another node; frames no longer
    /// reach any consumer.
    pub fn is_revoked(&self) -> bool {
        self.stream.is_revoked()
    }

    /// Starts another generation of a relayed stream. The times of the frames passed to
    /// [`Producer::send_relayed`] are shifted so that consumers see one timeline. `first` and
    /// `newest` are the decoding times of the oldest and the newest frame already received.
    pub fn start_generation(&mut self, generation: u64, first: MediaTime, newest: MediaTime) {
        self.splice.start_generation(generation, first, newest);
    }

    /// Returns the stream of this producer.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Returns true once the stream is known to have B-frames.
    pub fn has_b_frames(&self) -> bool {
        self.tracks.b_frames
    }

    /// Announces a track before its first frame.
    pub fn announce(&mut self, track: &Arc<Track>) {
        self.set_track(track, false);
    }

    /// Adds a frame. Does not wait.
    pub fn send(&mut self, frame: Frame) {
        let segment = self.segmenter.on_frame(&frame);
        self.push(frame, segment, self.segmenter.targets(), false);
    }

    /// Adds a frame of the [current generation](Producer::start_generation) of a relayed stream,
    /// with the segment number and the constants of its publishing node. Without `targets`, that
    /// node runs an earlier version. Does not wait.
    pub fn send_relayed(&mut self, mut frame: Frame, segment: Segment, targets: Option<Targets>, after_gap: bool) {
        frame.dts = frame.dts + self.splice.time_shift;
        frame.pts = frame.pts + self.splice.time_shift;
        self.splice.on_frame(frame.dts);
        self.push(frame, segment, targets.unwrap_or(self.segmenter.targets()), after_gap);
    }

    /// Announces a video track that has B-frames.
    pub fn announce_with_b_frames(&mut self, track: &Arc<Track>) {
        self.set_track(track, true);
    }

    fn push(&mut self, frame: Frame, segment: Segment, targets: Targets, after_gap: bool) {
        let reordered = frame.kind() == MediaKind::Video && self.reorder.on_frame(&frame);
        self.set_track(&frame.track, reordered);
        let Splice { generation, time_shift, .. } = self.splice;
        let kind = frame.kind();
        let (dts, bytes) = (frame.dts, frame.payload.len());
        let mut shared = self.stream.lock();
        shared.received_bytes += bytes as u64;
        shared.bitrate.add(dts, bytes);
        let slowest = shared.cursors.iter().flatten().copied().min();
        shared.buffer.push(Item { frame, segment, targets, generation, time_shift, after_gap }, slowest);
        drop(shared);
        // Without a consumer there is no one to notify: a new consumer reads the frame
        // before it waits.
        if slowest.is_some() {
            self.stream.update_notify(None).notify_waiters();
            self.stream.update_notify(Some(kind)).notify_waiters();
        }
    }

    /// Returns true if a key frame was requested since the last call.
    pub fn take_key_frame_request(&self) -> bool {
        self.stream.take_key_frame_request()
    }

    fn set_track(&mut self, track: &Arc<Track>, reordered: bool) {
        let slot = match track.kind() {
            MediaKind::Video => &mut self.tracks.video,
            MediaKind::Audio => &mut self.tracks.audio,
        };
        let same = slot.as_ref().is_some_and(|t| Arc::ptr_eq(t, track));
        let reordered = reordered || track.video.and_then(|v| v.reorder_frames).is_some_and(|n| n > 0);
        if same && (!reordered || self.tracks.b_frames) {
            return;
        }
        *slot = Some(Arc::clone(track));
        let new_video_track = !same && track.kind() == MediaKind::Video;
        if new_video_track {
            self.reorder = ReorderDetector::default();
        }
        self.tracks.b_frames = reordered || (self.tracks.b_frames && !new_video_track);
        self.stream.set_tracks(self.tracks.clone());
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if let Some(entry) = &self.table_entry {
            entry.remove();
        }
        self.stream.end();
    }
}
