//! Divides the frames of a stream into segments and parts.
//!
//! Segment boundaries come with the frames ([`crate::segment`]). Within a segment, the lead track
//! (video, if there is any) determines the part boundaries: a part ends at the lead frame that is
//! nearest to the target duration. Both depend only on the frames of the segment, so every node
//! produces the same parts. A segment whose first frame was not received is omitted.
//!
//! ```text
//!            first frame of a segment
//!   waiting ---------------------------> open --+-- target duration reached: Part
//!      ^                                        |
//!      +-- frames lost, or limit exceeded: End -+-- frame of another segment: Part, End, Begin
//! ```

use std::sync::Arc;

use bytes::Bytes;

use super::CmafError;
use super::init::{Init, same_configuration, timescale};
use super::part::{Run, Sample, encode_part};
use super::timeline::Timeline;
use super::track_id::{AUDIO_TRACK, VIDEO_TRACK};
use crate::codec::opus;
use crate::segment::Segment;
use crate::{Codec, Frame, MediaKind, MediaTime, Track};

/// The output of a [`Packager`]. For each segment: `Begin`, then at least one `Part`, then `End`.
#[derive(Debug, Clone)]
pub enum Output {
    /// A segment begins.
    Begin {
        /// Number and start time of the segment.
        segment: Segment,
        /// The initialization segment that it requires.
        init: Arc<Init>,
        /// True if a decoder must be reset: the configuration changed, timestamps jumped, or frames
        /// were lost.
        discontinuity: bool,
    },
    /// A part of the open segment.
    Part(Part),
    /// The open segment has ended.
    End,
    /// The tracks could not be described, so the segment is omitted or contains only video.
    Refused(CmafError),
    /// The open segment exceeds a limit and ends here, because the publisher sends no key frames.
    TooLong,
}

/// A part of a segment (a CMAF chunk).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Index in its segment, from 0.
    pub index: u32,
    /// Duration up to the start of the next part.
    pub duration: MediaTime,
    /// True if it contains a frame at which a decoder can start.
    pub independent: bool,
    /// The boxes `moof` and `mdat`.
    pub bytes: Bytes,
}

/// Divides one stream into segments and parts.
///
/// ```
/// use std::sync::Arc;
///
/// use bytes::Bytes;
/// use headwater_wire::cmaf::{Output, Packager};
/// use headwater_wire::codec::aac;
/// use headwater_wire::segment::Segmenter;
/// use headwater_wire::{Frame, MediaTime};
///
/// let track = Arc::new(aac::track(Bytes::from_static(&[0x11, 0x90])).unwrap());
/// let mut segmenter = Segmenter::new(MediaTime::from_ms(2_000));
/// let mut packager = Packager::new(MediaTime::from_ms(200));
/// let mut out = Vec::new();
/// for n in 0..100 {
///     let time = MediaTime::from_ticks(n * 1_024, 48_000);
///     let payload = Bytes::from_static(b"AAC access unit");
///     let frame = Frame { track: Arc::clone(&track), dts: time, pts: time, key: true, payload };
///     packager.push(&frame, segmenter.on_frame(&frame), &mut out);
/// }
/// packager.finish(&mut out);
///
/// // 2.13 s of audio: a segment of 2 s, with parts of nine packets (192 ms), and a second segment.
/// let segments = out.iter().filter(|o| matches!(o, Output::Begin { .. })).count();
/// let parts = out.iter().filter(|o| matches!(o, Output::Part(_))).count();
/// assert_eq!((segments, parts), (2, 12));
/// ```
#[derive(Debug)]
pub struct Packager {
    part_duration: MediaTime,
    video: Option<Arc<Track>>,
    audio: Option<Arc<Track>>,
    init: Option<Arc<Init>>,
    open: Option<OpenSegment>,
    /// Number and end time of the previous segment; `None` if the next one does not follow it.
    previous_end: Option<(u64, MediaTime)>,
    has_begun: bool,
}

#[derive(Debug)]
struct OpenSegment {
    segment: Segment,
    init: Arc<Init>,
    index: u32,
    part_start: MediaTime,
    /// Decoding time of the latest lead frame, and its distance from the one before it.
    last_dts: MediaTime,
    frame_interval: MediaTime,
    independent: bool,
    video: Vec<PendingSample>,
    audio: Vec<PendingSample>,
    timeline: Timeline,
    payload_bytes: usize,
    has_audio: bool,
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

impl Packager {
    /// Creates a packager with this target duration of a part.
    pub fn new(part_duration: MediaTime) -> Self {
        Self { part_duration, video: None, audio: None, init: None, open: None, previous_end: None, has_begun: false }
    }

    /// Announces tracks before their first frame, so that the first segment includes them. Ignored
    /// after the first segment has begun; from then on, frames announce their tracks.
    pub fn announce(&mut self, video: Option<&Arc<Track>>, audio: Option<&Arc<Track>>) {
        if !self.has_begun {
            self.video = self.video.take().or(video.cloned());
            self.audio = self.audio.take().or(audio.cloned());
        }
    }

    /// Adds the next frame of the stream and appends what it completes to `out`.
    pub fn push(&mut self, frame: &Frame, segment: Segment, out: &mut Vec<Output>) {
        self.update_track(&frame.track);
        if self.open.as_ref().is_some_and(|o| o.segment.number != segment.number) {
            self.end(Some(segment), out);
        }
        if self.open.is_none() && self.can_begin(frame, segment) {
            self.begin(frame, segment, out);
        }
        let Some(open) = &mut self.open else { return };
        if frame.dts - open.segment.start >= MAX_SEGMENT_DURATION {
            out.push(Output::TooLong);
            return self.abandon(out);
        }
        // A track that is new or changes within a segment is included from the next segment on.
        if !open.init.describes(&frame.track) {
            return;
        }
        if frame.kind() == open.lead_kind() {
            open.cut_before(frame.dts, self.part_duration, out);
        }
        open.add(frame);
        if open.payload_bytes > MAX_SEGMENT_BYTES {
            out.push(Output::TooLong);
            self.abandon(out);
        }
    }

    /// Ends the open segment, because frames were lost after the last one.
    pub fn abandon(&mut self, out: &mut Vec<Output>) {
        self.end(None, out);
        self.previous_end = None;
    }

    /// Ends the open segment, because the stream has ended.
    pub fn finish(&mut self, out: &mut Vec<Output>) {
        self.end(None, out);
    }

    fn update_track(&mut self, track: &Arc<Track>) {
        let slot = match track.kind() {
            MediaKind::Video => &mut self.video,
            MediaKind::Audio => &mut self.audio,
        };
        if !slot.as_ref().is_some_and(|known| Arc::ptr_eq(known, track)) {
            *slot = Some(Arc::clone(track));
        }
    }

    fn can_begin(&self, frame: &Frame, segment: Segment) -> bool {
        let leads = frame.kind() == MediaKind::Video || self.video.is_none();
        leads && frame.key && frame.dts == segment.start
    }

    fn begin(&mut self, frame: &Frame, segment: Segment, out: &mut Vec<Output>) {
        let video = self.video.clone();
        let unchanged = |init: &&Arc<Init>| {
            same_optional_configuration(&init.video, &video) && same_optional_configuration(&init.audio, &self.audio)
        };
        let (init, reconfigured) = match self.init.as_ref().filter(unchanged) {
            Some(init) => (Arc::clone(init), false),
            None => match Init::new(video.clone(), self.audio.clone()).or_else(|e| {
                // Video without audio is better than nothing.
                let init = Init::new(video, None).map_err(|_| e.clone())?;
                out.push(Output::Refused(e));
                self.audio = None;
                Ok(init)
            }) {
                Ok(init) => {
                    let reconfigured = self.init.as_ref().is_none_or(|old| old.id != init.id);
                    (Arc::new(init), reconfigured)
                }
                Err(e) => return out.push(Output::Refused(e)),
            },
        };
        let follows = self.previous_end.is_some_and(|(n, end)| n + 1 == segment.number && end <= segment.start);
        let discontinuity = self.has_begun && (reconfigured || !follows);
        self.has_begun = true;
        self.init = Some(Arc::clone(&init));
        out.push(Output::Begin { segment, init: Arc::clone(&init), discontinuity });
        let audio_hz = init.audio.as_deref().map_or(48_000, timescale);
        self.open = Some(OpenSegment {
            segment,
            init,
            index: 0,
            part_start: frame.dts,
            last_dts: frame.dts,
            frame_interval: MediaTime::ZERO,
            independent: false,
            video: Vec::new(),
            audio: Vec::new(),
            timeline: Timeline::new(audio_hz),
            payload_bytes: 0,
            has_audio: false,
        });
    }

    /// Ends the open segment. `next` is the segment of the next frame, if there is one.
    fn end(&mut self, next: Option<Segment>, out: &mut Vec<Output>) {
        let Some(mut open) = self.open.take() else { return };
        let latest = open.segment.start + MAX_SEGMENT_DURATION;
        let expected = (open.last_dts + open.frame_interval).min(latest);
        let end = match next {
            Some(Segment { number, start })
                if number == open.segment.number + 1 && start > open.last_dts && start <= latest =>
            {
                start
            }
            _ => expected,
        };
        open.close_part(end, out);
        out.push(Output::End);
        // Without the frames up to the next segment, a decoder must be reset.
        let is_gap = next.is_some_and(|next| next.start > latest);
        self.previous_end = (!is_gap).then_some((open.segment.number, end));
        // Players would wait forever for an announced audio track without any packets.
        if open.init.video.is_some() && open.init.audio.is_some() && !open.has_audio {
            self.audio = None;
        }
    }
}

impl OpenSegment {
    fn lead_kind(&self) -> MediaKind {
        if self.init.video.is_some() { MediaKind::Video } else { MediaKind::Audio }
    }

    /// Ends the part if the lead frame at `dts` is nearer to the target duration than the next one
    /// will be.
    fn cut_before(&mut self, dts: MediaTime, target: MediaTime, out: &mut Vec<Output>) {
        if dts == self.part_start {
            return;
        }
        self.frame_interval = dts - self.last_dts;
        self.last_dts = dts;
        let half = MediaTime::from_flicks(self.frame_interval.as_flicks() / 2);
        if dts - self.part_start + half >= target {
            self.close_part(dts, out);
        }
    }

    fn add(&mut self, frame: &Frame) {
        self.payload_bytes += frame.payload.len();
        let hz = timescale(&frame.track);
        let key = frame.key;
        let payload = frame.payload.clone();
        match frame.kind() {
            MediaKind::Video => {
                let dts_ticks = frame.dts.to_ticks(hz);
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

    fn close_part(&mut self, end: MediaTime, out: &mut Vec<Output>) {
        let mut runs = Vec::with_capacity(2);
        let video = self.init.video.as_deref().map(|t| end.to_ticks(timescale(t)));
        let (video_base, video) = resolve_durations(std::mem::take(&mut self.video), video);
        let (audio_base, audio) = resolve_durations(std::mem::take(&mut self.audio), None);
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
        let duration = (end - self.part_start).max(MediaTime::ZERO);
        out.push(Output::Part(Part {
            index,
            duration,
            independent: self.independent,
            bytes: encode_part(sequence, &runs),
        }));
        self.index += 1;
        self.part_start = end;
        self.independent = false;
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

fn same_optional_configuration(a: &Option<Arc<Track>>, b: &Option<Arc<Track>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same_configuration(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// A segment longer than this is ended early, because its publisher sends no key frames. Also the
/// maximum of EXT-X-TARGETDURATION, and thus of the time for which a playlist request can block.
pub const MAX_SEGMENT_DURATION: MediaTime = MediaTime::from_ms(60_000);
/// A segment larger than this is ended early. 64 MiB correspond to 25 s at 20 Mbit/s.
const MAX_SEGMENT_BYTES: usize = 64 << 20;
