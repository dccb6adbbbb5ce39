//! The frames that a stream keeps: its last GOP, and the frames that consumers have not read yet.
//!
//! A plain value: no lock, no task. Frames are numbered from 0; the position of a consumer is the
//! number of the frame that it reads next.
//!
//! ```text
//!   front                                         last key frame           end
//!     | older frames, while a consumer needs them |  last GOP, always kept  |
//! ```

use std::collections::VecDeque;

use headwater_wire::segment::Segment;
use headwater_wire::targets::Targets;
use headwater_wire::{Frame, MediaKind, MediaTime};

/// A frame with the number of the segment it belongs to.
#[derive(Debug, Clone)]
pub struct Item {
    /// The frame, with times on the timeline of this node.
    pub frame: Frame,
    /// Its segment (`wire::segment::Segmenter`), the same on every node.
    pub segment: Segment,
    /// The constants of the HLS playlists as of this frame, the same on every node.
    pub targets: Targets,
    /// The generation of the stream: Unix time in milliseconds at which it was published, by the
    /// clock of the publishing node.
    pub generation: u64,
    /// Added to the frame's times, so that they continue after an earlier generation. Zero on the
    /// node that publishes the stream.
    pub time_shift: MediaTime,
    /// True if frames before this one never arrived at this node.
    pub after_gap: bool,
}

impl Item {
    /// Returns the frame with times on the timeline of its generation, the same on every node.
    pub fn in_generation_time(&self) -> Frame {
        let frame = self.frame.clone();
        Frame { dts: frame.dts - self.time_shift, pts: frame.pts - self.time_shift, ..frame }
    }
}

/// Frames that a consumer missed because it was too slow, or because the GOP exceeded the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostFrames {
    /// The number of frames, at least 1.
    pub frames: u64,
}

#[derive(Debug)]
pub(crate) struct GopBuffer {
    items: VecDeque<Item>,
    /// Number of the oldest item.
    front: u64,
    /// Number of the key frame at which a new consumer starts, once there is one.
    last_key: Option<u64>,
    has_video: bool,
    payload_bytes: usize,
    depth_frames: usize,
    depth_bytes: usize,
    /// Number of finished segments that are kept without a consumer; 0 keeps only the last GOP.
    history_segments: usize,
    /// The newest segments, oldest first.
    segments: VecDeque<KeptSegment>,
}

/// The beginning of a segment.
#[derive(Debug)]
struct KeptSegment {
    /// Number of the segment.
    number: u64,
    /// Number of its first frame.
    first: u64,
    /// True if that is a key frame, so that a consumer can start there.
    key: bool,
}

impl GopBuffer {
    /// Creates an empty buffer of at most `depth_frames` frames and `depth_bytes` payload bytes.
    pub(crate) fn new(depth_frames: usize, depth_bytes: usize) -> Self {
        Self {
            items: VecDeque::new(),
            front: 0,
            last_key: None,
            has_video: false,
            payload_bytes: 0,
            depth_frames,
            depth_bytes,
            history_segments: 0,
            segments: VecDeque::new(),
        }
    }

    /// From now on also keeps this number of finished segments.
    pub(crate) fn keep_segments(&mut self, segments: usize) {
        self.history_segments = self.history_segments.max(segments);
    }

    /// Returns the start position of a consumer that reads the history: the oldest complete
    /// segment that begins with a key frame, otherwise [`GopBuffer::start`].
    pub(crate) fn history_start(&self) -> u64 {
        let oldest = self.segments.iter().find(|s| s.key && s.first >= self.front).map(|s| s.first);
        oldest.unwrap_or(u64::MAX).min(self.start())
    }

    /// Returns true if frame `number` is older than the newest frame by more than `limit`, and
    /// there is a later key frame at which to resume.
    pub(crate) fn is_behind(&self, number: u64, limit: MediaTime) -> bool {
        let next = number.checked_sub(self.front).and_then(|i| self.items.get(usize::try_from(i).ok()?));
        let (Some(next), Some(newest)) = (next, self.items.back()) else { return false };
        newest.frame.dts - next.frame.dts > limit && self.start() > number
    }

    /// Returns the number of the next frame to be added.
    pub(crate) fn end(&self) -> u64 {
        self.front + self.items.len() as u64
    }

    /// Returns the start position of a new consumer: the last key frame if it is still kept,
    /// otherwise the next frame to be added.
    pub(crate) fn start(&self) -> u64 {
        self.last_key.filter(|&k| k >= self.front).unwrap_or_else(|| self.end())
    }

    /// Adds a frame. `slowest` is the lowest frame number that a consumer has yet to read.
    pub(crate) fn push(&mut self, item: Item, slowest: Option<u64>) {
        let video = item.frame.kind() == MediaKind::Video;
        self.has_video |= video;
        if video || !self.has_video {
            let (first, key) = (self.end(), item.frame.key);
            if key {
                self.last_key = Some(first);
            }
            let number = item.segment.number;
            if self.segments.back().is_none_or(|newest| newest.number != number) {
                self.segments.push_back(KeptSegment { number, first, key });
                while self.segments.len() > self.history_segments + 1 {
                    self.segments.pop_front();
                }
            }
        }
        self.payload_bytes += item.frame.payload.len();
        self.items.push_back(item);
        let history_start =
            self.segments.front().filter(|_| self.history_segments > 0).map_or(u64::MAX, |oldest| oldest.first);
        let oldest_needed = slowest.unwrap_or(u64::MAX).min(self.last_key.unwrap_or(u64::MAX)).min(history_start);
        while self.front < oldest_needed && self.items.len() > 1 {
            self.pop();
        }
        while self.items.len() > self.depth_frames || (self.payload_bytes > self.depth_bytes && self.items.len() > 1) {
            self.pop();
        }
        // After a long GOP, release memory that is no longer needed.
        if self.items.capacity() > 4 * self.items.len().max(64) {
            self.items.shrink_to(2 * self.items.len());
        }
    }

    fn pop(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.payload_bytes -= item.frame.payload.len();
            self.front += 1;
        }
    }

    /// Returns the item with this number, or `Ok(None)` if it has not been added yet.
    ///
    /// # Errors
    /// If the item was already dropped, returns the number at which to resume: a key frame
    /// or the end.
    pub(crate) fn get(&self, number: u64) -> Result<Option<&Item>, u64> {
        match number.checked_sub(self.front) {
            None => Err(self.start()),
            Some(i) => Ok(usize::try_from(i).ok().and_then(|i| self.items.get(i))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use headwater_wire::{Codec, Track, VideoTrack};

    use super::*;

    fn item(key: bool, bytes: usize) -> Item {
        let track = Arc::new(Track {
            codec: Codec::H264,
            config: Bytes::new(),
            codec_string: None,
            video: Some(VideoTrack::default()),
            audio: None,
        });
        let t = MediaTime::ZERO;
        Item {
            frame: Frame { track, dts: t, pts: t, key, payload: vec![0; bytes].into() },
            segment: Segment { number: 0, start: t },
            targets: Targets::new(MediaTime::from_ms(200)),
            generation: 0,
            time_shift: t,
            after_gap: false,
        }
    }

    #[test]
    fn key_frame_drops_the_previous_gop_unless_a_consumer_needs_it() {
        let mut buffer = GopBuffer::new(100, 1 << 20);
        buffer.push(item(true, 1), None);
        buffer.push(item(false, 1), None);
        buffer.push(item(true, 1), Some(1));
        assert_eq!((buffer.front, buffer.start(), buffer.end()), (1, 2, 3));
        buffer.push(item(false, 1), Some(3));
        assert_eq!((buffer.front, buffer.payload_bytes), (2, 2));
    }

    #[test]
    fn finished_segments_are_kept_once_history_is_requested() {
        let mut buffer = GopBuffer::new(100, 1 << 20);
        buffer.keep_segments(2);
        for n in 0..5 {
            let mut first = item(true, 1);
            first.segment.number = n;
            buffer.push(first, None);
            let mut second = item(false, 1);
            second.segment.number = n;
            buffer.push(second, None);
        }
        assert_eq!((buffer.front, buffer.history_start(), buffer.start(), buffer.end()), (4, 4, 8, 10));
    }

    #[test]
    fn history_starts_at_a_segment_that_begins_with_a_key_frame() {
        let mut buffer = GopBuffer::new(100, 1 << 20);
        buffer.keep_segments(3);
        for (n, key) in [(0, true), (1, false), (1, true), (2, false), (3, true), (4, false)] {
            let mut item = item(key, 1);
            item.segment.number = n;
            buffer.push(item, None);
        }
        // Segments 1 to 4 are kept; 1 has a key frame, but not at its beginning.
        assert_eq!((buffer.front, buffer.history_start(), buffer.start()), (1, 4, 4));
    }

    #[test]
    fn consumer_that_lags_too_far_resumes_at_the_last_key_frame() {
        let mut buffer = GopBuffer::new(3, 1 << 20);
        for key in [true, false, false, true, false] {
            buffer.push(item(key, 1), Some(0));
        }
        assert_eq!(buffer.get(0).unwrap_err(), 3);
        assert!(buffer.get(4).unwrap().is_some());
        assert!(buffer.get(5).unwrap().is_none());
    }

    #[test]
    fn endless_gop_is_bounded_and_new_consumers_wait_for_a_key_frame() {
        let mut buffer = GopBuffer::new(1_000, 100);
        buffer.push(item(true, 60), None);
        for _ in 0..5 {
            buffer.push(item(false, 30), None);
        }
        assert!(buffer.payload_bytes <= 100);
        assert_eq!(buffer.start(), buffer.end());
    }
}
