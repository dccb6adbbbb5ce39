//! Divides a stream into numbered segments, so that every node cuts it at the same frames.
//!
//! A new segment begins at the first key frame that is at least the target duration after the start
//! of the current segment, at the first video frame of a new decoder configuration, and at the
//! first video frame of a stream that had only audio. The rule depends on every frame since the
//! beginning of the stream. It therefore runs once, where the stream is published (the hub's
//! producer), and the segment number travels with the frames.

use std::sync::Arc;

use crate::{Frame, MediaKind, MediaTime, Track};

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
    target: MediaTime,
    /// Start of the current segment; `None` before the first frame that can begin one.
    start: Option<MediaTime>,
    number: u64,
    has_video: bool,
    /// Track of the latest video key frame.
    video_track: Option<Arc<Track>>,
}

impl Segmenter {
    /// Creates a segmenter whose first segment has number 0. Segments last at least `target`, less
    /// 20 ms, because they end only at key frames.
    pub fn new(target: MediaTime) -> Self {
        Self::with_first_number(0, target)
    }

    /// Creates a segmenter whose first segment has the given number.
    pub fn with_first_number(number: u64, target: MediaTime) -> Self {
        Self { target, start: None, number, has_video: false, video_track: None }
    }

    /// Returns the segment that `frame` belongs to.
    ///
    /// Frames must be passed in the order in which they were received. After the first video frame,
    /// only video frames begin segments; before it, any audio packet can.
    pub fn on_frame(&mut self, frame: &Frame) -> Segment {
        let video = frame.kind() == MediaKind::Video;
        self.has_video |= video;
        let may_cut = frame.key && (video || !self.has_video);
        if may_cut {
            let reconfigured = video && self.detect_reconfiguration(&frame.track);
            match self.start {
                None => self.start = Some(frame.dts),
                // A timestamp that jumps back begins a segment too; otherwise this one would never
                // end.
                Some(start) if reconfigured || frame.dts - start >= self.target - TOLERANCE || frame.dts < start => {
                    self.number += 1;
                    self.start = Some(frame.dts);
                }
                Some(_) => {}
            }
        }
        Segment { number: self.number, start: self.start.unwrap_or(frame.dts) }
    }

    /// Returns true if `track` differs in decoder configuration from the previous video frames, and
    /// stores it.
    fn detect_reconfiguration(&mut self, track: &Arc<Track>) -> bool {
        match &self.video_track {
            Some(current) if Arc::ptr_eq(current, track) => false,
            current => {
                // The first video frame after audio only begins a segment too: from here on, video
                // frames determine the boundaries.
                let first_video = current.is_none() && self.start.is_some();
                let changed = current.as_ref().is_some_and(|k| k.codec != track.codec || k.config != track.config);
                self.video_track = Some(Arc::clone(track));
                changed || first_video
            }
        }
    }
}

/// RTMP timestamps are whole milliseconds, so a key frame every 2 s may be 1,999 ms after the last.
const TOLERANCE: MediaTime = MediaTime::from_ms(20);

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{AudioTrack, Codec, Track, VideoTrack};

    fn frame(codec: Codec, ms: i64, key: bool) -> Frame {
        let video = (codec.kind() == MediaKind::Video).then(VideoTrack::default);
        let audio = (codec.kind() == MediaKind::Audio).then_some(AudioTrack {
            sample_rate_hz: 48_000,
            channels: 2,
            samples_per_frame: 1024,
        });
        let track = Arc::new(Track { codec, config: Bytes::new(), codec_string: None, video, audio });
        let t = MediaTime::from_ms(ms);
        Frame { track, dts: t, pts: t, key, payload: Bytes::new() }
    }

    fn check(frames: &[(Codec, i64, bool)], expect: &[u64]) {
        let mut segmenter = Segmenter::new(MediaTime::from_ms(2_000));
        let got: Vec<u64> = frames.iter().map(|&(c, ms, key)| segmenter.on_frame(&frame(c, ms, key)).number).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn segments_begin_at_key_frames_once_the_target_is_reached() {
        use Codec::{Aac, H264};
        check(
            &[(H264, 0, true), (H264, 1_000, true), (Aac, 1_900, true), (H264, 1_999, true), (H264, 4_100, false)],
            &[0, 0, 0, 1, 1],
        );
    }

    #[test]
    fn first_video_frame_after_audio_begins_a_segment() {
        use Codec::{Aac, H264};
        check(&[(Aac, 0, true), (Aac, 21, true), (H264, 30, true), (Aac, 42, true)], &[0, 0, 1, 1]);
    }

    #[test]
    fn audio_only_stream_is_cut_at_any_packet() {
        check(&[(Codec::Aac, 0, true), (Codec::Aac, 1_970, true), (Codec::Aac, 1_990, true)], &[0, 0, 1]);
    }

    #[test]
    fn timestamp_that_jumps_back_begins_a_segment() {
        check(&[(Codec::H264, 9_000, true), (Codec::H264, 10, true)], &[0, 1]);
    }

    #[test]
    fn changed_decoder_configuration_begins_a_segment_and_an_equal_one_does_not() {
        let mut segmenter = Segmenter::new(MediaTime::from_ms(2_000));
        let mut with = |ms, config: &'static [u8]| {
            let mut frame = frame(Codec::H264, ms, true);
            frame.track = Arc::new(Track { config: Bytes::from_static(config), ..(*frame.track).clone() });
            segmenter.on_frame(&frame)
        };
        assert_eq!(with(0, b"a"), Segment { number: 0, start: MediaTime::ZERO });
        assert_eq!(with(500, b"a"), Segment { number: 0, start: MediaTime::ZERO });
        assert_eq!(with(1_000, b"b"), Segment { number: 1, start: MediaTime::from_ms(1_000) });
    }
}
