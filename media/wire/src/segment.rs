//! Where segments begin: one rule, so that every node cuts the same stream at the same frames under the same numbers.
//!
//! A segment begins at the first key frame whose distance from the segment's start reaches the target duration, or at
//! the first picture of another decoder configuration (or the first picture at all). The rule needs every frame from the stream's beginning, so it runs where the stream enters (the hub's producer), and
//! the number travels with the frames.

use std::sync::Arc;

use crate::{Frame, MediaKind, MediaTime, Track};

/// The segment a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Counted up from that of the stream's first segment, see [`first_number`].
    pub number: u64,
    /// Decoding time of its first frame: who has not seen a frame of that time has not seen the whole segment.
    pub start: MediaTime,
}

/// Number of the first segment of a stream that began at this Unix time in milliseconds: seconds since 2025.
///
/// Segments last longer than a second, so the numbers of a later life of the same stream are greater than all before it,
/// on whatever node it lives, and a playlist that goes on with the later life never counts backwards.
pub const fn first_number(life: u64) -> u64 {
    life.saturating_sub(YEAR_2025_MS) / 1_000
}

/// Number of the discontinuities before a stream that began at this Unix time in milliseconds (EXT-X-DISCONTINUITY-SEQUENCE):
/// every four seconds one more, and again from 0 after 18 hours.
///
/// A later life of the same stream has another media clock and most often a greater number, on whatever node it lives; it need
/// not have (RFC 8216 §4.3.3.3 would have it grow for ever): hls.js walks an array of this length with each playlist, which
/// from a million on takes longer than a part lasts. A player that sees it fall takes the stream up anew.
pub const fn first_discontinuity(life: u64) -> u64 {
    (life.saturating_sub(YEAR_2025_MS) / 4_000) % (1 << 14)
}

/// 2025-01-01T00:00:00Z.
const YEAR_2025_MS: u64 = 1_735_689_600_000;

/// Numbers the segments of one stream.
#[derive(Debug, Clone)]
pub struct Clock {
    target: MediaTime,
    /// Start of the current segment, once there is one.
    start: Option<MediaTime>,
    number: u64,
    has_video: bool,
    /// Of the last picture that could be decoded alone.
    configuration: Option<Arc<Track>>,
}

impl Clock {
    /// `target`: segments are at least this long (their last frame interval apart), but end at key frames only.
    pub fn new(target: MediaTime) -> Self {
        Self::starting_at(0, target)
    }

    /// The same with another number for the first segment.
    pub fn starting_at(number: u64, target: MediaTime) -> Self {
        Self { target, start: None, number, has_video: false, configuration: None }
    }

    /// The segment that `frame` belongs to.
    ///
    /// Frames must come in the order they were received. Once a stream has shown a picture, only pictures cut; a
    /// stream of sound alone is cut at any packet.
    pub fn on_frame(&mut self, frame: &Frame) -> Segment {
        let video = frame.kind() == MediaKind::Video;
        self.has_video |= video;
        let may_cut = frame.key && (video || !self.has_video);
        if may_cut {
            let reconfigured = video && self.is_reconfigured_by(&frame.track);
            match self.start {
                None => self.start = Some(frame.dts),
                // A clock that jumped back cuts too, or the segment would never end.
                Some(start) if reconfigured || frame.dts - start >= self.target - TOLERANCE || frame.dts < start => {
                    self.number += 1;
                    self.start = Some(frame.dts);
                }
                Some(_) => {}
            }
        }
        Segment { number: self.number, start: self.start.unwrap_or(frame.dts) }
    }

    /// True if `track` needs another decoder configuration than the pictures before; remembers it.
    fn is_reconfigured_by(&mut self, track: &Arc<Track>) -> bool {
        match &self.configuration {
            Some(known) if Arc::ptr_eq(known, track) => false,
            known => {
                // The first picture after sound alone begins one too: from here on, pictures lead.
                let sound_alone = known.is_none() && self.start.is_some();
                let other = known.as_ref().is_some_and(|k| k.codec != track.codec || k.config != track.config);
                self.configuration = Some(Arc::clone(track));
                other || sound_alone
            }
        }
    }
}

/// RTMP's clock counts whole milliseconds: a key frame 1 999 ms after the last one is 2 s away.
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
        let mut clock = Clock::new(MediaTime::from_ms(2_000));
        let got: Vec<u64> = frames.iter().map(|&(c, ms, key)| clock.on_frame(&frame(c, ms, key)).number).collect();
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
    fn the_first_picture_after_sound_begins_a_segment() {
        use Codec::{Aac, H264};
        check(&[(Aac, 0, true), (Aac, 21, true), (H264, 30, true), (Aac, 42, true)], &[0, 0, 1, 1]);
    }

    #[test]
    fn sound_alone_is_cut_at_any_packet() {
        check(&[(Codec::Aac, 0, true), (Codec::Aac, 1_970, true), (Codec::Aac, 1_990, true)], &[0, 0, 1]);
    }

    #[test]
    fn a_clock_that_jumps_back_begins_a_segment() {
        check(&[(Codec::H264, 9_000, true), (Codec::H264, 10, true)], &[0, 1]);
    }

    #[test]
    fn another_decoder_configuration_begins_a_segment_and_the_same_one_again_does_not() {
        let mut clock = Clock::new(MediaTime::from_ms(2_000));
        let mut with = |ms, config: &'static [u8]| {
            let mut frame = frame(Codec::H264, ms, true);
            frame.track = Arc::new(Track { config: Bytes::from_static(config), ..(*frame.track).clone() });
            clock.on_frame(&frame)
        };
        assert_eq!(with(0, b"a"), Segment { number: 0, start: MediaTime::ZERO });
        assert_eq!(with(500, b"a"), Segment { number: 0, start: MediaTime::ZERO });
        assert_eq!(with(1_000, b"b"), Segment { number: 1, start: MediaTime::from_ms(1_000) });
    }
}
