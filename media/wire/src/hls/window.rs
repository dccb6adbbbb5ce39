//! The segments a viewer can ask for now, and the rules that say what is there, what is still to come, and what is not.
//!
//! ```text
//!   kept for late requests | listed in the playlist            | open
//!   3  4  5  6  7  8       | 9  10  11  12  13  14             | 15: parts 0 1 2, part 3 is hinted
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Reload;
use crate::MediaTime;
use crate::cmaf::{Init, Output, Part};
use crate::segment::first_discontinuity;

/// What a window is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Wanted duration of a part.
    pub part: MediaTime,
    /// Wanted duration of a segment.
    pub segment: MediaTime,
    /// Finished segments in the playlist, at least 1.
    pub listed: usize,
    /// Unix time of the stream's beginning, in milliseconds; names the folder of its segments.
    pub started_at_ms: u64,
}

/// One segment with its parts.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Media sequence number.
    pub number: u64,
    /// Decoding time of its first frame.
    pub start: MediaTime,
    /// What a decoder needs before it.
    pub init: Arc<Init>,
    /// True if decoders cannot simply go on after the segment before it.
    pub discontinuity: bool,
    /// Parts so far; all of them once it is finished.
    pub parts: Vec<Part>,
    /// The bytes of all parts in one piece, if they were gathered.
    whole: Option<Bytes>,
}

impl Segment {
    /// Of all its parts so far.
    pub fn duration(&self) -> MediaTime {
        self.parts.iter().fold(MediaTime::ZERO, |sum, p| sum + p.duration)
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.bytes.len()).sum()
    }
}

/// What a request for a resource finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<T> {
    /// It is here.
    Here(T),
    /// It was promised and will come.
    Soon,
    /// It is gone, or was never promised.
    Never,
}

/// Whether a blocking playlist request can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The playlist holds what was asked for.
    Now,
    /// It will.
    Soon,
    /// It asks for something too far in the future: 400 (RFC 8216bis §6.2.5.2).
    Absurd,
}

/// The sliding window of one stream. Cheap to clone: segments are shared.
#[derive(Debug, Clone)]
pub struct Window {
    pub(super) settings: Settings,
    finished: VecDeque<Arc<Segment>>,
    pub(super) open: Option<Segment>,
    /// Discontinuities in segments that are no longer kept, counted up from [`first_discontinuity`].
    past_discontinuities: u64,
    pub(super) ended: bool,
}

impl Window {
    /// An empty window.
    pub fn new(settings: Settings) -> Self {
        let past_discontinuities = first_discontinuity(settings.started_at_ms);
        Self { settings, finished: VecDeque::new(), open: None, past_discontinuities, ended: false }
    }

    /// Which life of the stream its segments are of: the Unix time of its beginning, in milliseconds.
    pub fn life(&self) -> u64 {
        self.settings.started_at_ms
    }

    /// The stream goes on from another node: forgets the segments of the life before. Numbers of segments and of
    /// discontinuities go on at those that every other node gives to this life.
    pub fn begin_life(&mut self, life: u64) {
        *self = Self::new(Settings { started_at_ms: life, ..self.settings });
    }

    /// Takes what the packager made. True if viewers can see a difference.
    pub fn apply(&mut self, output: Output) -> bool {
        match output {
            Output::Begin { segment, init, discontinuity } => {
                // Numbers in a playlist have no holes: after lost segments it begins anew.
                if self.finished.back().is_some_and(|last| last.number + 1 != segment.number) {
                    self.forget(0);
                }
                let (number, start) = (segment.number, segment.start);
                self.open = Some(Segment { number, start, init, discontinuity, parts: Vec::new(), whole: None });
                false
            }
            Output::Part(part) => {
                if let Some(open) = &mut self.open {
                    open.parts.push(part);
                }
                true
            }
            Output::End => {
                let Some(open) = self.open.take().filter(|open| !open.parts.is_empty()) else { return false };
                self.finished.push_back(Arc::new(open));
                self.forget(KEPT_PER_LISTED * self.settings.listed);
                let mut bytes: usize = self.finished.iter().map(|s| s.bytes()).sum();
                while bytes > MAX_KEPT_BYTES && self.finished.len() > 1 {
                    bytes -= self.finished[0].bytes();
                    self.forget(self.finished.len() - 1);
                }
                true
            }
            Output::Refused(_) | Output::TooLong => false,
        }
    }

    /// Puts the bytes of the newest finished segment where `gather` does, which gives those of its parts in one piece.
    /// Nothing changes if it gives none, or if somebody has a copy of the window with this segment.
    pub fn gather_newest(&mut self, gather: impl FnOnce(&[Bytes]) -> Option<Bytes>) {
        let Some(segment) = self.finished.back_mut().and_then(Arc::get_mut) else { return };
        let parts: Vec<Bytes> = segment.parts.iter().map(|p| p.bytes.clone()).collect();
        let Some(whole) = gather(&parts).filter(|whole| whole.len() == segment.bytes()) else { return };
        let mut rest = whole.clone();
        for part in &mut segment.parts {
            part.bytes = rest.split_to(part.bytes.len());
        }
        segment.whole = Some(whole);
    }

    /// The stream has ended: no more parts come.
    pub fn end(&mut self) {
        self.ended = true;
        self.open = None;
    }

    /// True once [`Window::end`] was called.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// True until the first segment begins.
    pub fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.open.is_none()
    }

    /// True once there is a whole segment: players that do not know parts need one.
    pub fn is_playable(&self) -> bool {
        !self.finished.is_empty()
    }

    /// The finished segments that the playlist lists, oldest first.
    pub fn listed(&self) -> impl DoubleEndedIterator<Item = &Segment> + ExactSizeIterator {
        let skip = self.finished.len().saturating_sub(self.settings.listed.max(1));
        self.finished.range(skip..).map(Arc::as_ref)
    }

    /// Discontinuities before the first listed segment (EXT-X-DISCONTINUITY-SEQUENCE).
    pub(super) fn discontinuities_before(&self) -> u64 {
        let unlisted = self.finished.len() - self.listed().len();
        let kept = self.finished.range(..unlisted).filter(|s| s.discontinuity).count();
        self.past_discontinuities + kept as u64
    }

    /// Number of the segment that is open, or will be next.
    pub(super) fn open_number(&self) -> Option<u64> {
        let next = || self.finished.back().map(|s| s.number + 1);
        self.open.as_ref().map(|s| s.number).or_else(next)
    }

    /// The longest part in the playlist, at least somewhat longer than wanted: parts end where pictures do.
    pub fn part_target(&self) -> MediaTime {
        let wanted = self.settings.part;
        let slack = MediaTime::from_flicks(wanted.as_flicks() / 10);
        let recent = self.listed().rev().take(super::playlist::SEGMENTS_WITH_PARTS).chain(&self.open);
        recent.flat_map(|s| &s.parts).map(|p| p.duration).fold(wanted + slack, MediaTime::max)
    }

    /// Seconds that no listed segment exceeds when rounded (EXT-X-TARGETDURATION).
    pub fn target_duration_secs(&self) -> u64 {
        let longest = self.listed().chain(&self.open).map(Segment::duration).max().unwrap_or_default();
        let wanted = self.settings.segment.as_secs_f64().ceil();
        (longest.as_secs_f64().round().max(wanted) as u64).max(1)
    }

    /// Peak and average bits per second over the kept segments (RFC 8216bis §4.4.6.2).
    pub fn bitrate_bps(&self) -> (u64, u64) {
        let (mut peak, mut bits, mut secs) = (0.0_f64, 0.0, 0.0);
        for segment in &self.finished {
            let (b, s) = (8.0 * segment.bytes() as f64, segment.duration().as_secs_f64());
            if s > 0.0 {
                peak = peak.max(b / s);
            }
            bits += b;
            secs += s;
        }
        (peak as u64, if secs > 0.0 { (bits / secs) as u64 } else { 0 })
    }

    /// Whether a blocking playlist request can be answered now.
    pub fn readiness(&self, reload: Reload) -> Readiness {
        if self.ended {
            return Readiness::Now;
        }
        let Some(open) = self.open_number() else { return Readiness::Soon };
        let open_parts = self.open.as_ref().map_or(0, |s| s.parts.len() as u64);
        // A part after the last one of a finished segment is the first one of the next (RFC 8216bis §6.2.5.2).
        let (msn, part) = match reload.part {
            Some(p) if self.finished_segment(reload.msn).is_some_and(|s| u64::from(p) >= s.parts.len() as u64) => {
                (reload.msn.saturating_add(1), Some(0))
            }
            part => (reload.msn, part.map(u64::from)),
        };
        if msn < open || (msn == open && part.is_some_and(|p| p < open_parts)) {
            return Readiness::Now;
        }
        let far = msn > open.saturating_add(MAX_ADVANCE_SEGMENTS)
            || (msn == open && part.is_some_and(|p| p > open_parts + self.max_advance_parts()));
        if far { Readiness::Absurd } else { Readiness::Soon }
    }

    /// The Advance Part Limit: three seconds of parts, at least 3.
    fn max_advance_parts(&self) -> u64 {
        let part = self.settings.part.as_secs_f64().max(0.001);
        ((3.0 / part).ceil() as u64).max(3)
    }

    /// An initialisation segment.
    pub fn init(&self, id: u32) -> Option<Bytes> {
        let all = self.open.iter().chain(self.finished.iter().rev().map(Arc::as_ref));
        all.map(|s| &s.init).find(|i| i.id == id).map(|i| i.bytes.clone())
    }

    /// A finished segment, in one piece or as the bytes of its parts. One that a node a moment ahead may list already is [`Found::Soon`].
    pub fn segment(&self, number: u64) -> Found<Vec<Bytes>> {
        match self.finished_segment(number) {
            Some(segment) => Found::Here(match &segment.whole {
                Some(whole) => vec![whole.clone()],
                None => segment.parts.iter().map(|p| p.bytes.clone()).collect(),
            }),
            None if !self.ended && self.open_number() == Some(number) => Found::Soon,
            None => Found::Never,
        }
    }

    /// A part. The one that the playlist hints at is [`Found::Soon`], and those that a node a moment ahead may list already.
    pub fn part(&self, number: u64, part: u32) -> Found<Bytes> {
        let index = part as usize;
        if let Some(segment) = self.finished_segment(number) {
            return segment.parts.get(index).map_or(Found::Never, |p| Found::Here(p.bytes.clone()));
        }
        if self.ended {
            return Found::Never;
        }
        match &self.open {
            Some(open) if open.number == number => match open.parts.get(index) {
                Some(p) => Found::Here(p.bytes.clone()),
                None if index <= open.parts.len() + PARTS_AHEAD => Found::Soon,
                None => Found::Never,
            },
            Some(open) if open.number + 1 == number && index < PARTS_AHEAD => Found::Soon,
            None if self.open_number() == Some(number) && index <= PARTS_AHEAD => Found::Soon,
            _ => Found::Never,
        }
    }

    fn finished_segment(&self, number: u64) -> Option<&Segment> {
        let first = self.finished.front()?.number;
        self.finished.get(usize::try_from(number.checked_sub(first)?).ok()?).map(Arc::as_ref)
    }

    /// Keeps the newest `keep` segments.
    fn forget(&mut self, keep: usize) {
        let drop = self.finished.len().saturating_sub(keep);
        let gone = self.finished.drain(..drop);
        self.past_discontinuities += gone.filter(|s| s.discontinuity).count() as u64;
    }
}

/// A segment stays available as long again after it left the playlist (RFC 8216bis §6.2.2).
const KEPT_PER_LISTED: usize = 2;
/// Of one stream: 13 segments of 2 s at 80 Mbit/s.
const MAX_KEPT_BYTES: usize = 256 << 20;
/// Nodes that have the same stream are milliseconds apart, less than a part.
const PARTS_AHEAD: usize = 1;
/// RFC 8216bis §6.2.5.2: more than two segments ahead is an error.
const MAX_ADVANCE_SEGMENTS: u64 = 2;
