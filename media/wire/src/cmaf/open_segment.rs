//! The segment in progress: collects samples and divides them into parts.
//!
//! The lead track (video, if there is any) determines where parts end. A part ends at a frame of
//! the lead track, if one begins between the shortest and the longest permitted duration of a part,
//! at the one nearest to the preferred duration. Otherwise, because a frame is late or missing, it
//! ends at the longest duration:
//!
//! ```text
//!   frames   |  |  |  |  |     .  |  |     the frame at the dot is missing
//!   parts    |--------------->|------      both end at permitted durations
//! ```
//!
//! - The last sample ends with the part, and the next frame is decoded at once instead of at its
//!   own decoding time. It is presented when it would have been, so decoding times have no gap.
//! - A pause longer than another part is filled by parts with the audio packets of that time. The
//!   last frame before the pause then lasts up to the next one. If there is no audio either, no
//!   part describes the pause: an empty part would be no media, and a longer one is not permitted.
//!
//! All this depends only on the frames of the segment. Must not know playlists or segment numbers.

use std::sync::Arc;

use bytes::Bytes;

use super::init::{Init, timescale};
use super::output::{Output, Part};
use super::part::{Run, Sample, encode_part};
use super::timeline::Timeline;
use super::track_id::{AUDIO_TRACK, VIDEO_TRACK};
use crate::codec::opus;
use crate::segment::Segment;
use crate::targets::Targets;
use crate::{Codec, Frame, MediaKind, MediaTime};

/// The segment in progress.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) segment: Segment,
    pub(super) init: Arc<Init>,
    index: u32,
    part_start: MediaTime,
    /// Decoding time of the latest lead frame, and its distance from the one before it.
    last_dts: MediaTime,
    frame_interval: MediaTime,
    independent: bool,
    video: Vec<PendingSample>,
    audio: Vec<PendingSample>,
    timeline: Timeline,
    pub(super) payload_bytes: usize,
    pub(super) has_audio: bool,
}

/// A sample before its duration is known.
#[derive(Debug)]
struct PendingSample {
    dts_ticks: i64,
    /// Duration given by the packet itself; 0 if unknown.
    duration_ticks: u32,
    composition_offset: i32,
    key: bool,
    payload: Bytes,
}

impl OpenSegment {
    /// Creates a segment that begins with a lead frame at `start`.
    pub(super) fn new(segment: Segment, init: Arc<Init>, start: MediaTime) -> Self {
        let audio_hz = init.audio.as_deref().map_or(48_000, timescale);
        Self {
            segment,
            init,
            index: 0,
            part_start: start,
            last_dts: start,
            frame_interval: MediaTime::ZERO,
            independent: false,
            video: Vec::new(),
            audio: Vec::new(),
            timeline: Timeline::new(audio_hz),
            payload_bytes: 0,
            has_audio: false,
        }
    }

    /// Returns the decoding time of the latest lead frame.
    pub(super) fn last_dts(&self) -> MediaTime {
        self.last_dts
    }

    /// Returns the expected end of the latest lead frame.
    pub(super) fn expected_end(&self) -> MediaTime {
        self.last_dts + self.frame_interval
    }

    /// Adds a frame of a track that [`OpenSegment::init`] describes. Ends the parts before it.
    pub(super) fn push(&mut self, frame: &Frame, targets: &Targets, out: &mut Vec<Output>) {
        let decode_at =
            if frame.kind() == self.lead_kind() { self.on_lead_frame(frame.dts, targets, out) } else { frame.dts };
        self.add(frame, decode_at);
    }

    /// Ends the last parts of the segment. `end` is the end of the segment, `media_end` that of its
    /// last video sample.
    pub(super) fn finish(mut self, end: MediaTime, media_end: MediaTime, targets: &Targets, out: &mut Vec<Output>) {
        let cap = self.part_start + targets.part;
        if end > cap {
            // A short gap before the next segment is harmless; a longer one makes browsers wait for
            // a key frame (Media Source Extensions §3.5.8).
            let is_short_gap = media_end - self.last_dts <= (cap - self.last_dts) + (cap - self.last_dts);
            self.fill(end, if is_short_gap { cap } else { media_end }, targets.part, out);
        }
        self.close_part(end, media_end, None, out);
    }

    fn lead_kind(&self) -> MediaKind {
        if self.init.video.is_some() { MediaKind::Video } else { MediaKind::Audio }
    }

    /// Ends the parts that are complete before the lead frame at `dts`. Returns when to decode it.
    fn on_lead_frame(&mut self, dts: MediaTime, targets: &Targets, out: &mut Vec<Output>) -> MediaTime {
        let elapsed = dts - self.part_start;
        if elapsed == MediaTime::ZERO {
            return dts;
        }
        self.frame_interval = dts - self.last_dts;
        self.last_dts = dts;
        let longest = targets.part;
        if elapsed <= longest {
            let half_a_frame = MediaTime::from_flicks(self.frame_interval.as_flicks() / 2);
            let is_nearest = elapsed + half_a_frame >= targets.preferred_part();
            let is_last_chance = elapsed + self.frame_interval > longest;
            if elapsed >= targets.shortest_part() && (is_nearest || is_last_chance) {
                self.close_part(dts, dts, None, out);
            }
            return dts;
        }
        let cap = self.part_start + longest;
        if dts <= cap + longest {
            self.close_part(cap, cap, Some(cap), out);
            return cap;
        }
        self.fill(dts, dts, longest, out);
        dts
    }

    /// Ends parts of the longest duration until `next` is within one. `video_end` is the end of the
    /// last video sample.
    fn fill(&mut self, next: MediaTime, video_end: MediaTime, longest: MediaTime, out: &mut Vec<Output>) {
        while next - self.part_start > longest {
            if self.video.is_empty() && self.audio.is_empty() {
                // Nothing describes the rest of the pause.
                self.part_start = next;
                return;
            }
            let cap = self.part_start + longest;
            self.close_part(cap, video_end, Some(cap), out);
        }
    }

    fn add(&mut self, frame: &Frame, decode_at: MediaTime) {
        self.payload_bytes += frame.payload.len();
        let hz = timescale(&frame.track);
        let key = frame.key;
        let payload = frame.payload.clone();
        match frame.kind() {
            MediaKind::Video => {
                let dts_ticks = decode_at.to_ticks(hz);
                let offset = frame.pts.to_ticks(hz) - dts_ticks;
                let composition_offset = i32::try_from(offset).unwrap_or(0);
                self.independent |= key;
                self.video.push(PendingSample { dts_ticks, duration_ticks: 0, composition_offset, key, payload });
            }
            MediaKind::Audio => {
                self.has_audio = true;
                self.independent |= self.init.video.is_none();
                let duration_ticks = match frame.track.codec {
                    Codec::Opus => opus::packet_samples(&frame.payload).unwrap_or(0),
                    _ => frame.track.audio.map_or(0, |a| a.samples_per_frame),
                };
                let dts_ticks = self.timeline.align(frame.dts, duration_ticks);
                self.audio.push(PendingSample { dts_ticks, duration_ticks, composition_offset: 0, key: true, payload });
            }
        }
    }

    /// Ends the part at `end` and its last video sample at `video_end`. Audio packets from
    /// `audio_until` on stay for the next part. Writes no part without samples.
    fn close_part(
        &mut self,
        end: MediaTime,
        video_end: MediaTime,
        audio_until: Option<MediaTime>,
        out: &mut Vec<Output>,
    ) {
        let duration = (end - self.part_start).max(MediaTime::ZERO);
        self.part_start = end;
        let mut audio = std::mem::take(&mut self.audio);
        if let (Some(until), Some(track)) = (audio_until, &self.init.audio) {
            let until_ticks = until.to_ticks(timescale(track));
            let first_later = audio.iter().position(|packet| packet.dts_ticks >= until_ticks).unwrap_or(audio.len());
            self.audio = audio.split_off(first_later);
        }
        let video_end_ticks = self.init.video.as_deref().map(|track| video_end.to_ticks(timescale(track)));
        let (video_base, video) = resolve_durations(std::mem::take(&mut self.video), video_end_ticks);
        let (audio_base, audio) = resolve_durations(audio, None);
        let mut runs = Vec::with_capacity(2);
        if !video.is_empty() {
            runs.push(Run { track_id: VIDEO_TRACK, base_decode_time: video_base, samples: &video });
        }
        if !audio.is_empty() {
            runs.push(Run { track_id: AUDIO_TRACK, base_decode_time: audio_base, samples: &audio });
        }
        if runs.is_empty() {
            return;
        }
        let index = self.index;
        // The sequence number must only increase (ISO/IEC 14496-12 §8.8.5). This one is the same on
        // every node.
        let sequence = (self.segment.number as u32).wrapping_mul(1 << 10).wrapping_add(index + 1);
        let bytes = encode_part(sequence, &runs);
        out.push(Output::Part(Part { index, duration, independent: self.independent, bytes }));
        self.index += 1;
        self.independent = self.init.video.is_none() && !self.audio.is_empty();
    }
}

/// Sets the duration of each sample: up to the next one; for the last one, up to `end_ticks` or, if
/// that is `None`, the duration given by the packet.
fn resolve_durations(pending: Vec<PendingSample>, end_ticks: Option<i64>) -> (u64, Vec<Sample>) {
    let base = pending.first().map_or(0, |p| u64::try_from(p.dts_ticks).unwrap_or(0));
    let next: Vec<Option<i64>> = pending.iter().skip(1).map(|p| Some(p.dts_ticks)).chain([None]).collect();
    let samples = pending
        .into_iter()
        .zip(next)
        .map(|(p, next)| {
            let up_to = |end: i64| u32::try_from(end - p.dts_ticks).unwrap_or(0);
            let duration = next.or(end_ticks).map_or(p.duration_ticks, up_to);
            Sample { duration, composition_offset: p.composition_offset, key: p.key, payload: p.payload }
        })
        .collect();
    (base, samples)
}
