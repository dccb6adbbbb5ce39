//! Divides a stream into numbered segments, so that every node cuts it at the same frames, and
//! decides the constants of its playlists.
//!
//! A new segment begins
//!
//! - at the first key frame that is at least the configured duration after the start of the current
//!   segment, or before that if the next key frame is expected after the longest duration;
//! - at the last frame before the segment would exceed the longest duration, key frame or not;
//! - at the first video frame of a new decoder configuration, and at the first video frame of a
//!   stream that had only audio.
//!
//! The longest duration follows from EXT-X-TARGETDURATION, which the first segment decides: it ends
//! at a key frame, unless none arrives within `MAX_FIRST_SEGMENT_SECS`. All this depends on every
//! frame since the beginning of the stream. It therefore runs once, where the stream is published
//! (the hub's producer), and the segment number and the constants travel with the frames.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::codec::opus;
use crate::targets::{MAX_SEGMENT_DURATION, Targets, longest_segment};
use crate::{Codec, Frame, MediaKind, MediaTime, Track};

/// The segment that a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Media sequence number. The first one is given by [`first_segment_number`].
    pub number: u64,
    /// Decoding time of the first frame. A reader that did not receive a frame with this time has
    /// only a part of the segment.
    pub start: MediaTime,
}

/// Returns the number of the first segment of a stream generation that began at this Unix time in
/// milliseconds: the number of seconds since 2025-01-01.
///
/// A segment lasts longer than one second, so the segment numbers of a later generation of the same
/// stream are greater than all earlier ones, whichever node publishes it. The media sequence number
/// of a playlist that continues with the later generation therefore never decreases.
pub const fn first_segment_number(started_at_ms: u64) -> u64 {
    started_at_ms.saturating_sub(YEAR_2025_MS) / 1_000
}

/// Returns the EXT-X-DISCONTINUITY-SEQUENCE of a stream generation that began at this Unix time in
/// milliseconds. It increases by one every four seconds and returns to 0 after 18 hours.
///
/// A later generation of the same stream has a new media clock and usually a greater number,
/// whichever node publishes it. RFC 8216 §4.3.3.3 requires that the number never decreases, but
/// hls.js iterates over an array of this length for each playlist; above one million this takes
/// longer than the duration of a part. A player that sees the number decrease reloads the stream.
pub const fn first_discontinuity_sequence(started_at_ms: u64) -> u64 {
    (started_at_ms.saturating_sub(YEAR_2025_MS) / 4_000) % (1 << 14)
}

/// 2025-01-01T00:00:00Z.
const YEAR_2025_MS: u64 = 1_735_689_600_000;

/// Assigns the frames of one stream to numbered segments.
#[derive(Debug, Clone)]
pub struct Segmenter {
    duration: MediaTime,
    /// The current segment; `None` before the first frame that can begin one.
    current: Option<Current>,
    number: u64,
    has_video: bool,
    /// Track of the latest video key frame.
    video_track: Option<Arc<Track>>,
    lead: LeadTimes,
    targets: Targets,
}

/// The segment in progress.
#[derive(Debug, Clone, Copy)]
struct Current {
    start: MediaTime,
    begins_with_key: bool,
    /// Frames of the lead track so far.
    frames: i64,
}

/// Times of the lead track: video, or audio while there is no video.
#[derive(Debug, Clone, Copy, Default)]
struct LeadTimes {
    newest: Option<MediaTime>,
    /// Between the newest frames, newest first. A single long interval is a pause, not a frame
    /// rate, so the one before it is kept too.
    intervals: Option<[MediaTime; 2]>,
    key: Option<MediaTime>,
    /// Between the newest key frames, newest first. After an additional key frame, such as at a
    /// scene cut, the regular interval begins again.
    key_intervals: [MediaTime; 2],
}

impl Segmenter {
    /// Creates a segmenter whose first segment has number 0. Segments last at least
    /// `segment_duration`, less 20 ms, if key frames permit; parts last about `part_duration`.
    pub fn new(segment_duration: MediaTime, part_duration: MediaTime) -> Self {
        Self::with_first_number(0, segment_duration, part_duration)
    }

    /// Creates a segmenter whose first segment has the given number.
    pub fn with_first_number(number: u64, segment_duration: MediaTime, part_duration: MediaTime) -> Self {
        Self {
            duration: segment_duration,
            current: None,
            number,
            has_video: false,
            video_track: None,
            lead: LeadTimes::default(),
            targets: Targets::new(part_duration),
        }
    }

    /// Returns the constants of the playlists, as of the latest frame.
    pub fn targets(&self) -> Targets {
        self.targets
    }

    /// Returns the segment that `frame` belongs to.
    ///
    /// Frames must be passed in the order in which they were received. After the first video frame,
    /// only video frames begin segments; before it, any audio packet can.
    pub fn on_frame(&mut self, frame: &Frame) -> Segment {
        let video = frame.kind() == MediaKind::Video;
        self.has_video |= video;
        if video || !self.has_video {
            let reconfigured = video && frame.key && self.detect_reconfiguration(&frame.track);
            self.on_lead_frame(frame, reconfigured);
        }
        Segment { number: self.number, start: self.current.map_or(frame.dts, |current| current.start) }
    }

    fn on_lead_frame(&mut self, frame: &Frame, reconfigured: bool) {
        let (dts, key) = (frame.dts, frame.key);
        self.lead.add(dts, key);
        let Some(Current { start, begins_with_key, frames }) = self.current else {
            if key {
                if frame.kind() == MediaKind::Audio {
                    self.targets.fit_packets(packet_duration(frame));
                }
                self.current = Some(Current { start: dts, begins_with_key: true, frames: 1 });
            }
            return;
        };
        let elapsed = dts - start;
        // A timestamp that jumps back begins a segment too; otherwise this one would never end.
        let restarts = reconfigured || (key && elapsed < MediaTime::ZERO);
        let longest = self.longest();
        let ends = if key {
            let next_key_is_late = elapsed + self.lead.key_interval() > longest;
            elapsed >= self.duration - TOLERANCE
                || (elapsed >= MIN_SEGMENT_DURATION && (next_key_is_late || !begins_with_key))
        } else {
            elapsed + self.lead.frame_interval() + MAX_JITTER > longest
        };
        if !restarts && !ends {
            self.current = Some(Current { start, begins_with_key, frames: frames.saturating_add(1) });
            return;
        }
        if !restarts && self.targets.segment_secs.is_none() {
            self.decide_targets(elapsed, frames);
        }
        self.targets.independent &= key;
        self.number += 1;
        self.current = Some(Current { start: dts, begins_with_key: key, frames: 1 });
    }

    /// Decides the constants from the first segment: its duration and its number of lead frames.
    fn decide_targets(&mut self, elapsed: MediaTime, frames: i64) {
        // After a pause, the first segment is shorter than the time to the next frame.
        let first = whole_secs(elapsed - TOLERANCE).min(MAX_FIRST_SEGMENT_SECS);
        self.targets.segment_secs = Some(first.max(self.configured_secs()));
        let interval = elapsed.as_flicks() / frames.max(1);
        self.targets.has_parts = interval.min(self.lead.frame_interval().as_flicks()) <= self.targets.part.as_flicks();
    }

    /// Returns the longest duration of the current segment.
    fn longest(&self) -> MediaTime {
        let undecided = self.configured_secs().max(MAX_FIRST_SEGMENT_SECS);
        longest_segment(self.targets.segment_secs.unwrap_or(undecided))
    }

    fn configured_secs(&self) -> NonZeroU32 {
        whole_secs(self.duration.min(MAX_SEGMENT_DURATION))
    }

    /// Returns true if `track` differs in decoder configuration from the previous video frames, and
    /// stores it.
    fn detect_reconfiguration(&mut self, track: &Arc<Track>) -> bool {
        match &self.video_track {
            Some(current) if Arc::ptr_eq(current, track) => false,
            current => {
                // The first video frame after audio only begins a segment too: from here on, video
                // frames determine the boundaries.
                let first_video = current.is_none() && self.current.is_some();
                let changed = current.as_ref().is_some_and(|k| k.codec != track.codec || k.config != track.config);
                self.video_track = Some(Arc::clone(track));
                changed || first_video
            }
        }
    }
}

impl LeadTimes {
    fn add(&mut self, dts: MediaTime, key: bool) {
        if let Some(newest) = self.newest.replace(dts) {
            let interval = dts - newest;
            self.intervals = Some([interval, self.intervals.map_or(interval, |[last, _]| last)]);
        }
        if key && let Some(last) = self.key.replace(dts) {
            self.key_intervals = [dts - last, self.key_intervals[0]];
        }
    }

    /// Returns the time after which another key frame is expected.
    fn key_interval(&self) -> MediaTime {
        self.key_intervals[0].max(self.key_intervals[1])
    }

    /// Returns the time between frames, without a single pause.
    fn frame_interval(&self) -> MediaTime {
        self.intervals.map_or(MediaTime::ZERO, |[newest, before]| newest.min(before).max(MediaTime::ZERO))
    }
}

/// Returns the number of seconds, rounded up, at least 1.
fn whole_secs(duration: MediaTime) -> NonZeroU32 {
    let rounded_up = duration.as_flicks().saturating_add(MediaTime::HZ - 1).div_euclid(MediaTime::HZ);
    let secs = u32::try_from(rounded_up).unwrap_or(1);
    NonZeroU32::new(secs).unwrap_or(NonZeroU32::MIN)
}

fn packet_duration(frame: &Frame) -> MediaTime {
    let Some(audio) = frame.track.audio else { return MediaTime::ZERO };
    let samples = match frame.track.codec {
        Codec::Opus => opus::packet_samples(&frame.payload).unwrap_or(0),
        _ => audio.samples_per_frame,
    };
    if audio.sample_rate_hz == 0 {
        MediaTime::ZERO
    } else {
        MediaTime::from_ticks(samples.into(), audio.sample_rate_hz)
    }
}

/// RTMP timestamps are whole milliseconds, so a key frame every 2 s may be 1,999 ms after the last.
const TOLERANCE: MediaTime = MediaTime::from_ms(20);
/// How much later than expected the next frame may be without making a segment too long.
const MAX_JITTER: MediaTime = MediaTime::from_ms(50);
/// [`first_segment_number`] requires that segments last a second on average.
const MIN_SEGMENT_DURATION: MediaTime = MediaTime::from_ms(1_000);
/// A first GOP longer than this does not raise the target duration: the delay of players is three
/// target durations. x264's default, a key frame every 250 frames, is 10.4 s at 24 frames per
/// second and still rounds to 10 s.
const MAX_FIRST_SEGMENT_SECS: NonZeroU32 = NonZeroU32::new(10).expect("a literal above zero");
