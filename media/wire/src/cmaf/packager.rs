//! Divides the frames of a stream into segments and parts.
//!
//! Segment boundaries come with the frames ([`crate::segment`]), and so does the longest duration
//! of a part ([`crate::targets`]). Part boundaries depend on nothing but that and the frames of the
//! segment (`open_segment`), so every node produces the same parts. A segment whose first frame was
//! not received is omitted; so is one that begins without a key frame, unless the segment before it
//! was received.
//!
//! ```text
//!            first frame of a segment
//!   waiting ---------------------------> open --+-- target duration reached: Part
//!      ^                                        |
//!      +-- frames lost, or limit exceeded: End -+-- frame of another segment: Part, End, Begin
//! ```

use std::sync::Arc;

use super::init::{Init, same_configuration};
use super::open_segment::OpenSegment;
use super::output::Output;
use crate::segment::Segment;
use crate::targets::{MAX_SEGMENT_DURATION, Targets};
use crate::{Frame, MediaKind, MediaTime, Track};

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
/// let mut segmenter = Segmenter::new(MediaTime::from_ms(2_000), MediaTime::from_ms(200));
/// let mut packager = Packager::new(segmenter.targets());
/// let mut out = Vec::new();
/// for n in 0..100 {
///     let time = MediaTime::from_ticks(n * 1_024, 48_000);
///     let payload = Bytes::from_static(b"AAC access unit");
///     let frame = Frame { track: Arc::clone(&track), dts: time, pts: time, key: true, payload };
///     let segment = segmenter.on_frame(&frame);
///     packager.set_targets(segmenter.targets());
///     packager.push(&frame, segment, &mut out);
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
    targets: Targets,
    video: Option<Arc<Track>>,
    audio: Option<Arc<Track>>,
    init: Option<Arc<Init>>,
    open: Option<OpenSegment>,
    /// Number of the previous segment and its end, which is `None` before a gap. `None` if frames
    /// were lost after it.
    previous: Option<(u64, Option<MediaTime>)>,
    has_begun: bool,
}

impl Packager {
    /// Creates a packager for a stream with these constants.
    pub fn new(targets: Targets) -> Self {
        Self { targets, video: None, audio: None, init: None, open: None, previous: None, has_begun: false }
    }

    /// Sets the constants of the stream. Must be called before the first frame to which they
    /// belong.
    pub fn set_targets(&mut self, targets: Targets) {
        self.targets = targets;
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
        open.push(frame, &self.targets, out);
        if open.payload_bytes > MAX_SEGMENT_BYTES {
            out.push(Output::TooLong);
            self.abandon(out);
        }
    }

    /// Ends the open segment, because frames were lost after the last one.
    pub fn abandon(&mut self, out: &mut Vec<Output>) {
        self.end(None, out);
        self.previous = None;
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
        let follows = self.previous.is_some_and(|(number, _)| number + 1 == segment.number);
        leads && (frame.key || follows) && frame.dts == segment.start
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
        let follows = self
            .previous
            .is_some_and(|(number, end)| number + 1 == segment.number && end.is_some_and(|end| end <= segment.start));
        let discontinuity = self.has_begun && (reconfigured || !follows);
        self.has_begun = true;
        self.init = Some(Arc::clone(&init));
        out.push(Output::Begin { segment, init: Arc::clone(&init), discontinuity });
        self.open = Some(OpenSegment::new(segment, init, frame.dts));
    }

    /// Ends the open segment. `next` is the segment of the next frame, if there is one.
    fn end(&mut self, next: Option<Segment>, out: &mut Vec<Output>) {
        let Some(open) = self.open.take() else { return };
        let Segment { number, start } = open.segment;
        let latest = start + self.targets.longest_segment();
        let expected = open.expected_end().min(latest);
        let next_start = next
            .filter(|next| next.number == number + 1 && next.start > open.last_dts())
            .map(|next| next.start)
            // Without the frames up to the next segment, a decoder must be reset.
            .filter(|&next_start| next_start - latest <= self.targets.part);
        // A frame that is later than expected makes the last sample longer, but not the segment.
        let end = next_start.map_or(expected, |next_start| next_start.min(latest));
        let is_gap = next_start.is_none() && next.is_some_and(|next| next.start > latest);
        self.previous = Some((number, (!is_gap).then_some(end)));
        let has_video = open.init.video.is_some();
        // Players would wait forever for an announced audio track without any packets.
        if has_video && open.init.audio.is_some() && !open.has_audio {
            self.audio = None;
        }
        open.finish(end, next_start.unwrap_or(end), &self.targets, out);
        out.push(Output::End { duration: (end - start).max(MediaTime::ZERO) });
    }
}

fn same_optional_configuration(a: &Option<Arc<Track>>, b: &Option<Arc<Track>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same_configuration(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// A segment larger than this is ended early. 64 MiB correspond to 25 s at 20 Mbit/s.
const MAX_SEGMENT_BYTES: usize = 64 << 20;
