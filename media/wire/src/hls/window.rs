//! The sliding window of segments that viewers can request. It decides which segments and parts are
//! available, which will be available soon, and which do not exist.
//!
//! ```text
//!   kept for late requests | listed in the playlist            | open
//!   3  4  5  6  7  8       | 9  10  11  12  13  14             | 15: parts 0 1 2, part 3 is hinted
//! ```

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;

use super::Reload;
use crate::MediaTime;
use crate::cmaf::{Init, Output, Part};
use crate::segment::first_discontinuity_sequence;
use crate::targets::{MAX_SEGMENT_DURATION, Targets};

/// The configuration of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Configured duration of a part; the stream's own [`Targets`] replace it.
    pub part_duration: MediaTime,
    /// Configured duration of a segment; the stream's own [`Targets`] replace it.
    pub segment_duration: MediaTime,
    /// Number of finished segments in the playlist, at least 1.
    pub listed_segments: usize,
    /// Unix time in milliseconds at which the stream generation began. It is the folder name of its
    /// segments.
    pub started_at_ms: u64,
}

/// One segment with its parts.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Media sequence number.
    pub number: u64,
    /// Decoding time of its first frame.
    pub start: MediaTime,
    /// The initialization segment that this segment requires.
    pub init: Arc<Init>,
    /// True if a decoder must be reset before this segment (EXT-X-DISCONTINUITY).
    pub discontinuity: bool,
    /// The parts so far; all of them once the segment is finished.
    pub parts: Vec<Part>,
    /// Set once the segment is finished.
    finished_duration: Option<MediaTime>,
    /// The bytes of all parts in one buffer, after [`Window::gather_newest`].
    contiguous: Option<Bytes>,
}

impl Segment {
    /// Returns the duration of the segment, or of the parts so far.
    pub fn duration(&self) -> MediaTime {
        let of_parts = || self.parts.iter().fold(MediaTime::ZERO, |sum, p| sum + p.duration);
        self.finished_duration.unwrap_or_else(of_parts)
    }

    fn size_bytes(&self) -> usize {
        self.parts.iter().map(|p| p.bytes.len()).sum()
    }
}

/// The result of a request for a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The resource is available.
    Found(T),
    /// The resource is not complete yet; the request may wait for it.
    Pending,
    /// The resource was removed or was never announced.
    NotFound,
}

/// Whether a blocking playlist reload can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The playlist contains the requested segment or part.
    Ready,
    /// The playlist will contain it soon; the request may wait.
    Pending,
    /// The request is too far in the future: HTTP status 400 (RFC 8216bis §6.2.5.2).
    TooFarAhead,
}

/// The sliding window of one stream. Cheap to clone: finished segments are shared.
///
/// ```
/// use std::sync::Arc;
///
/// use bytes::Bytes;
/// use headwater_wire::cmaf::{Init, Output, Part};
/// use headwater_wire::codec::aac;
/// use headwater_wire::hls::{Readiness, Reload, Settings, Window};
/// use headwater_wire::segment::Segment;
/// use headwater_wire::targets::Targets;
/// use headwater_wire::MediaTime;
///
/// let mut window = Window::new(Settings {
///     part_duration: MediaTime::from_ms(500),
///     segment_duration: MediaTime::from_ms(500),
///     listed_segments: 6,
///     started_at_ms: 1_800_000_000_000,
/// });
/// let track = aac::track(Bytes::from_static(&[0x11, 0x90])).unwrap();
/// let init = Arc::new(Init::new(None, Some(Arc::new(track))).unwrap());
/// let segment = Segment { number: 7, start: MediaTime::ZERO };
/// let part = Part {
///     index: 0,
///     duration: MediaTime::from_ms(500),
///     independent: true,
///     bytes: Bytes::from_static(b"moof and mdat"),
/// };
///
/// // A request that blocks for segment 7 can be answered once the segment has ended.
/// let reload = Reload { msn: 7, part: None };
/// window.apply(Output::Begin { segment, init, discontinuity: false });
/// window.apply(Output::Part(part));
/// assert_eq!(window.readiness(reload), Readiness::Pending);
/// window.apply(Output::End { duration: MediaTime::from_ms(500) });
/// assert_eq!(window.readiness(reload), Readiness::Ready);
///
/// // The playlist exists once the values that must not change in it are known.
/// assert!(!window.is_playable());
/// let targets = Targets::new(MediaTime::from_ms(500));
/// window.set_targets(Targets { segment_secs: Some(1.try_into().unwrap()), ..targets });
/// assert!(window.is_playable());
/// assert!(window.media_playlist("").contains("1800000000000/7.m4s"));
/// ```
#[derive(Debug, Clone)]
pub struct Window {
    pub(super) settings: Settings,
    finished: VecDeque<Arc<Segment>>,
    pub(super) open: Option<Segment>,
    /// Number of discontinuities in removed segments, plus [`first_discontinuity_sequence`].
    past_discontinuities: u64,
    pub(super) targets: Targets,
    pub(super) ended: bool,
}

impl Window {
    /// Creates an empty window.
    pub fn new(settings: Settings) -> Self {
        let past_discontinuities = first_discontinuity_sequence(settings.started_at_ms);
        let targets = Targets::new(settings.part_duration);
        Self { settings, finished: VecDeque::new(), open: None, past_discontinuities, targets, ended: false }
    }

    /// Returns the generation of the stream that the segments belong to: the Unix time of its
    /// start, in milliseconds.
    pub fn generation(&self) -> u64 {
        self.settings.started_at_ms
    }

    /// Begins a new generation of the stream, for example after another node became its origin.
    /// Removes all segments of the previous generation. The numbers of segments and discontinuities
    /// continue with those that every other node assigns to this generation.
    pub fn begin_generation(&mut self, started_at_ms: u64) {
        *self = Self::new(Settings { started_at_ms, ..self.settings });
    }

    /// Sets the constants of the stream. Must be called before the outputs of the first frame to
    /// which they belong are applied. Once EXT-X-TARGETDURATION is known, only
    /// [`Targets::independent`] changes.
    pub fn set_targets(&mut self, targets: Targets) {
        if self.targets.segment_secs.is_none() {
            self.targets = targets;
        }
        self.targets.independent &= targets.independent;
    }

    /// Applies one output of the packager. Returns true if the playlist changed.
    pub fn apply(&mut self, output: Output) -> bool {
        match output {
            Output::Begin { segment, init, discontinuity } => {
                // The segment numbers in a playlist have no gaps: after lost segments it restarts.
                if self.finished.back().is_some_and(|last| last.number + 1 != segment.number) {
                    self.retain_newest(0);
                }
                if !self.finished.is_empty() {
                    self.decide_missing_target();
                }
                let (number, start) = (segment.number, segment.start);
                let (parts, finished_duration, contiguous) = (Vec::new(), None, None);
                self.open = Some(Segment { number, start, init, discontinuity, parts, finished_duration, contiguous });
                false
            }
            Output::Part(part) => {
                if let Some(open) = &mut self.open {
                    open.parts.push(part);
                }
                true
            }
            Output::End { duration } => {
                let Some(mut open) = self.open.take().filter(|open| !open.parts.is_empty()) else { return false };
                open.finished_duration = Some(duration);
                self.finished.push_back(Arc::new(open));
                self.retain_newest(RETAINED_PER_LISTED * self.settings.listed_segments);
                let mut bytes: usize = self.finished.iter().map(|s| s.size_bytes()).sum();
                while bytes > MAX_RETAINED_BYTES && self.finished.len() > 1 {
                    bytes -= self.finished[0].size_bytes();
                    self.retain_newest(self.finished.len() - 1);
                }
                true
            }
            Output::Refused(_) | Output::TooLong => false,
        }
    }

    /// Replaces the bytes of the newest finished segment with the single buffer that `gather`
    /// returns for the bytes of its parts; the parts become slices of it. Does nothing if `gather`
    /// returns `None` or a buffer of another length, or if a clone of the window shares this
    /// segment.
    pub fn gather_newest(&mut self, gather: impl FnOnce(&[Bytes]) -> Option<Bytes>) {
        let Some(segment) = self.finished.back_mut().and_then(Arc::get_mut) else { return };
        let parts: Vec<Bytes> = segment.parts.iter().map(|p| p.bytes.clone()).collect();
        let Some(whole) = gather(&parts).filter(|whole| whole.len() == segment.size_bytes()) else { return };
        let mut rest = whole.clone();
        for part in &mut segment.parts {
            part.bytes = rest.split_to(part.bytes.len());
        }
        segment.contiguous = Some(whole);
    }

    /// Marks the stream as ended and discards the open segment.
    pub fn end(&mut self) {
        self.decide_missing_target();
        self.ended = true;
        self.open = None;
    }

    /// Returns true after [`Window::end`].
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Returns true until the first segment begins.
    pub fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.open.is_none()
    }

    /// Returns true once there is a finished segment, which players without LL-HLS support need,
    /// and EXT-X-TARGETDURATION is known.
    pub fn is_playable(&self) -> bool {
        !self.finished.is_empty() && self.targets.segment_secs.is_some()
    }

    /// Returns the finished segments in the playlist, oldest first.
    pub fn listed(&self) -> impl DoubleEndedIterator<Item = &Segment> + ExactSizeIterator {
        let skip = self.finished.len().saturating_sub(self.settings.listed_segments.max(1));
        self.finished.range(skip..).map(Arc::as_ref)
    }

    /// Returns the number of discontinuities before the first listed segment
    /// (EXT-X-DISCONTINUITY-SEQUENCE).
    pub(super) fn discontinuity_sequence(&self) -> u64 {
        let unlisted = self.finished.len() - self.listed().len();
        let unlisted_discontinuities = self.finished.range(..unlisted).filter(|s| s.discontinuity).count();
        self.past_discontinuities + unlisted_discontinuities as u64
    }

    /// Returns the number of the open segment, or of the next one if none is open.
    pub(super) fn open_number(&self) -> Option<u64> {
        let next = || self.finished.back().map(|s| s.number + 1);
        self.open.as_ref().map(|s| s.number).or_else(next)
    }

    /// Decides EXT-X-TARGETDURATION here: the stream ended within its first segment, or its origin
    /// runs an earlier version, which sends no constants.
    fn decide_missing_target(&mut self) {
        let longest = self.finished.iter().map(|segment| segment.duration()).max().unwrap_or_default();
        let secs = longest.max(self.settings.segment_duration).min(MAX_SEGMENT_DURATION).as_secs_f64().ceil();
        let secs = NonZeroU32::new(secs as u32).unwrap_or(NonZeroU32::MIN);
        self.targets.segment_secs.get_or_insert(secs);
    }

    /// Returns PART-TARGET.
    pub fn part_target(&self) -> MediaTime {
        self.targets.part
    }

    /// Returns EXT-X-TARGETDURATION, or the minimum until it is known.
    pub fn target_duration_secs(&self) -> u64 {
        self.targets.segment_secs.map_or(1, |secs| u64::from(secs.get()))
    }

    /// Returns the peak and the average bit rate of the kept segments, in bits per second
    /// (RFC 8216bis §4.4.6.2).
    pub fn bitrate_bps(&self) -> (u64, u64) {
        let (mut peak, mut bits, mut secs) = (0.0_f64, 0.0, 0.0);
        for segment in &self.finished {
            let (b, s) = (8.0 * segment.size_bytes() as f64, segment.duration().as_secs_f64());
            if s > 0.0 {
                peak = peak.max(b / s);
            }
            bits += b;
            secs += s;
        }
        (peak as u64, if secs > 0.0 { (bits / secs) as u64 } else { 0 })
    }

    /// Returns whether a blocking playlist reload can be answered now.
    pub fn readiness(&self, reload: Reload) -> Readiness {
        if self.ended {
            return Readiness::Ready;
        }
        let Some(open) = self.open_number() else { return Readiness::Pending };
        let open_parts = self.open.as_ref().map_or(0, |s| s.parts.len() as u64);
        // A part index past the end of a finished segment means the first part of the next one
        // (RFC 8216bis §6.2.5.2).
        let (msn, part) = match reload.part {
            Some(p) if self.finished_segment(reload.msn).is_some_and(|s| u64::from(p) >= s.parts.len() as u64) => {
                (reload.msn.saturating_add(1), Some(0))
            }
            part => (reload.msn, part.map(u64::from)),
        };
        if msn < open || (msn == open && part.is_some_and(|p| p < open_parts)) {
            return Readiness::Ready;
        }
        let too_far_ahead = msn > open.saturating_add(MAX_ADVANCE_SEGMENTS)
            || (msn == open && part.is_some_and(|p| p > open_parts + self.max_advance_parts()));
        if too_far_ahead { Readiness::TooFarAhead } else { Readiness::Pending }
    }

    /// Returns the Advance Part Limit: three seconds of parts, at least 3.
    fn max_advance_parts(&self) -> u64 {
        let part = self.targets.part.as_secs_f64().max(0.001);
        ((3.0 / part).ceil() as u64).max(3)
    }

    /// Returns the bytes of an initialization segment.
    pub fn init(&self, id: u32) -> Option<Bytes> {
        let all = self.open.iter().chain(self.finished.iter().rev().map(Arc::as_ref));
        all.map(|s| &s.init).find(|i| i.id == id).map(|i| i.bytes.clone())
    }

    /// Returns a finished segment, as one buffer or as one buffer per part. The open segment is
    /// [`Lookup::Pending`], because a node that is slightly ahead may already list it.
    pub fn segment(&self, number: u64) -> Lookup<Vec<Bytes>> {
        match self.finished_segment(number) {
            Some(segment) => Lookup::Found(match &segment.contiguous {
                Some(whole) => vec![whole.clone()],
                None => segment.parts.iter().map(|p| p.bytes.clone()).collect(),
            }),
            None if !self.ended && self.open_number() == Some(number) => Lookup::Pending,
            None => Lookup::NotFound,
        }
    }

    /// Returns a part. The part in the preload hint is [`Lookup::Pending`], and so are the next
    /// ones, which a node that is slightly ahead may already list.
    pub fn part(&self, number: u64, part: u32) -> Lookup<Bytes> {
        let index = part as usize;
        if let Some(segment) = self.finished_segment(number) {
            return segment.parts.get(index).map_or(Lookup::NotFound, |p| Lookup::Found(p.bytes.clone()));
        }
        if self.ended {
            return Lookup::NotFound;
        }
        match &self.open {
            Some(open) if open.number == number => match open.parts.get(index) {
                Some(p) => Lookup::Found(p.bytes.clone()),
                None if index <= open.parts.len() + MAX_PARTS_AHEAD => Lookup::Pending,
                None => Lookup::NotFound,
            },
            Some(open) if open.number + 1 == number && index < MAX_PARTS_AHEAD => Lookup::Pending,
            None if self.open_number() == Some(number) && index <= MAX_PARTS_AHEAD => Lookup::Pending,
            _ => Lookup::NotFound,
        }
    }

    fn finished_segment(&self, number: u64) -> Option<&Segment> {
        let first = self.finished.front()?.number;
        self.finished.get(usize::try_from(number.checked_sub(first)?).ok()?).map(Arc::as_ref)
    }

    /// Removes all but the newest `keep` finished segments.
    fn retain_newest(&mut self, keep: usize) {
        let drop = self.finished.len().saturating_sub(keep);
        let removed = self.finished.drain(..drop);
        self.past_discontinuities += removed.filter(|s| s.discontinuity).count() as u64;
    }
}

/// Number of finished segments that still list their parts (RFC 8216bis §6.2.2: up to three target
/// durations from the end).
pub(super) const SEGMENTS_WITH_PARTS: usize = 3;
/// Finished segments kept per listed segment: a segment remains available for the duration of the
/// playlist after its removal from the playlist (RFC 8216bis §6.2.2).
const RETAINED_PER_LISTED: usize = 2;
/// Limit per stream: 13 segments of 2 s at 80 Mbit/s.
const MAX_RETAINED_BYTES: usize = 256 << 20;
/// Nodes with the same stream are milliseconds apart, which is less than one part.
const MAX_PARTS_AHEAD: usize = 1;
/// A reload for more than two segments ahead is an error (RFC 8216bis §6.2.5.2).
const MAX_ADVANCE_SEGMENTS: u64 = 2;
