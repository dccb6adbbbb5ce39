//! Fills gaps in the audio of a stream with video: silence in, where the publisher sends none.
//!
//! Players that have begun with audio and video wait for both, so they freeze in a gap of one, and
//! their buffers cannot take a stream without audio instead. Silence begins once video is further
//! ahead of audio than the publisher's interleaving explains, and continues up to the next audio
//! packet. This depends on the frames of three segments at most, so a node that has packaged some
//! segments adds the same packets as every other node. Must not know playlists or containers.

use std::sync::Arc;

use headwater_wire::segment::Segment;
use headwater_wire::{Frame, MediaKind, MediaTime, Track};

use crate::gateway::hls::silence::SilentPacket;

/// Finds the gaps of one stream.
#[derive(Debug, Default)]
pub(super) struct AudioGaps {
    audio: Option<(Arc<Track>, Option<SilentPacket>)>,
    open: Option<OpenSegment>,
    longest_segment: MediaTime,
}

/// Progress of the stream up to the newest frame.
#[derive(Debug)]
struct OpenSegment {
    segment: Segment,
    video: MediaTime,
    /// End of the last audio packet, silence included; the start of the first segment if there was
    /// none.
    audio_end: MediaTime,
    is_filling: bool,
    /// How far video was ahead of audio at most when audio arrived, in this segment and in the one
    /// before; `None` without audio.
    lag: Option<MediaTime>,
    previous_lag: Option<MediaTime>,
}

impl AudioGaps {
    /// Announces the audio track before its first packet.
    pub(super) fn announce(&mut self, audio: Option<&Arc<Track>>) {
        if let (None, Some(track)) = (&self.audio, audio) {
            self.set_track(track);
        }
    }

    /// Forgets the frames so far, because some were lost.
    pub(super) fn reset(&mut self) {
        self.open = None;
    }

    /// Sets the duration at which the packager ends a segment: a longer pause is not filled.
    pub(super) fn set_longest_segment(&mut self, duration: MediaTime) {
        self.longest_segment = duration;
    }

    /// Takes the next frame of the stream. Appends the silence that precedes it to `silence`.
    /// Returns false if the frame must be omitted: audio of a time that is already filled.
    pub(super) fn on_frame(&mut self, frame: &Frame, segment: Segment, silence: &mut Vec<(Frame, Segment)>) -> bool {
        match frame.kind() {
            MediaKind::Video => {
                self.on_video(frame.dts, segment, silence);
                true
            }
            MediaKind::Audio => self.on_audio(frame, segment, silence),
        }
    }

    fn on_video(&mut self, time: MediaTime, segment: Segment, silence: &mut Vec<(Frame, Segment)>) {
        if self.open.as_ref().is_none_or(|open| open.segment.number != segment.number) {
            self.begin_segment(segment, silence);
        }
        if let Some(open) = &mut self.open {
            open.video = time;
        }
        self.fill_if_due(time, silence);
    }

    fn begin_segment(&mut self, segment: Segment, silence: &mut Vec<(Frame, Segment)>) {
        let is_next = self.open.as_ref().is_some_and(|open| {
            open.segment.number + 1 == segment.number && segment.start - open.segment.start <= self.longest_segment
        });
        if is_next {
            self.fill_if_due(segment.start, silence);
        }
        let before = self.open.take().filter(|_| is_next);
        self.open = Some(OpenSegment {
            segment,
            video: segment.start,
            audio_end: before.as_ref().map_or(segment.start, |open| open.audio_end),
            is_filling: before.as_ref().is_some_and(|open| open.is_filling),
            lag: None,
            previous_lag: before.and_then(|open| open.lag),
        });
    }

    fn on_audio(&mut self, frame: &Frame, segment: Segment, silence: &mut Vec<(Frame, Segment)>) -> bool {
        if !self.audio.as_ref().is_some_and(|(track, _)| Arc::ptr_eq(track, &frame.track)) {
            self.set_track(&frame.track);
        }
        let Some((_, Some(packet))) = &self.audio else { return true };
        let duration = packet.duration;
        let Some(open) = self.open.as_mut().filter(|open| open.segment.number == segment.number) else { return true };
        // A packet that begins in the last half of a silent one is moved by the packager.
        if open.is_filling && open.audio_end - frame.dts > MediaTime::from_flicks(duration.as_flicks() / 2) {
            return false;
        }
        // Audio is in order: what is missing before this packet does not arrive any more.
        let had_audio = open.is_filling || open.lag.is_some() || open.previous_lag.is_some();
        if had_audio && frame.dts - open.audio_end >= duration + duration {
            self.fill_until(frame.dts, silence);
        }
        if let Some(open) = &mut self.open {
            let end = frame.dts + duration;
            open.lag = Some(open.lag.unwrap_or(MediaTime::ZERO).max(open.video - end));
            open.audio_end = open.audio_end.max(end);
            open.is_filling = false;
        }
        true
    }

    /// Fills up to `time`, which video has reached, if audio is missing.
    fn fill_if_due(&mut self, time: MediaTime, silence: &mut Vec<(Frame, Segment)>) {
        let Some(open) = &mut self.open else { return };
        let lag = open.lag.max(open.previous_lag);
        let max_gap = lag.map_or(MAX_INTERLEAVING, |lag| (lag + MAX_JITTER).min(MAX_INTERLEAVING));
        open.is_filling |= time - open.audio_end >= max_gap;
        if open.is_filling {
            self.fill_until(time, silence);
        }
    }

    /// Appends silence to the open segment up to `end`, in whole packets.
    fn fill_until(&mut self, end: MediaTime, silence: &mut Vec<(Frame, Segment)>) {
        let (Some(open), Some((track, Some(packet)))) = (&mut self.open, &self.audio) else { return };
        if end - open.segment.start > self.longest_segment {
            return;
        }
        open.audio_end = open.audio_end.max(open.segment.start);
        while open.audio_end + packet.duration <= end {
            let (track, time) = (Arc::clone(track), open.audio_end);
            let frame = Frame { track, dts: time, pts: time, key: true, payload: packet.payload.clone() };
            silence.push((frame, open.segment));
            open.audio_end = time + packet.duration;
        }
    }

    fn set_track(&mut self, track: &Arc<Track>) {
        self.audio = Some((Arc::clone(track), SilentPacket::of(track)));
    }
}

/// Some publishers interleave blocks of more than a second.
const MAX_INTERLEAVING: MediaTime = MediaTime::from_ms(1_500);
/// Audio may arrive this much later than it did before.
const MAX_JITTER: MediaTime = MediaTime::from_ms(300);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headwater_wire::codec::aac;
    use headwater_wire::{Codec, VideoTrack};

    use super::*;

    /// A stream with a video frame every 40 ms and segments of 2 s; counts what it is filled with.
    struct Feed {
        gaps: AudioGaps,
        video: Arc<Track>,
        audio: Arc<Track>,
        silence: Vec<(Frame, Segment)>,
    }

    impl Feed {
        fn new() -> Self {
            let video = Track {
                codec: Codec::H264,
                config: Bytes::new(),
                codec_string: None,
                video: Some(VideoTrack::default()),
                audio: None,
            };
            let audio = Arc::new(aac::track(Bytes::from_static(&[0x11, 0x90])).unwrap());
            let mut gaps = AudioGaps::default();
            gaps.announce(Some(&audio));
            gaps.set_longest_segment(MediaTime::from_ms(2_719));
            Self { gaps, video: Arc::new(video), audio, silence: Vec::new() }
        }

        fn push(&mut self, track: &Arc<Track>, ms: i64, segment: Segment) -> bool {
            let time = MediaTime::from_ms(ms);
            let frame = Frame { track: Arc::clone(track), dts: time, pts: time, key: true, payload: Bytes::new() };
            self.gaps.on_frame(&frame, segment, &mut self.silence)
        }

        fn video(&mut self, ms: std::ops::Range<i64>) {
            let video = Arc::clone(&self.video);
            for ms in ms.step_by(40) {
                let segment = segment_at(ms);
                assert!(self.push(&video, ms, segment));
            }
        }

        /// Returns the number of packets that are omitted.
        fn audio(&mut self, ms: std::ops::Range<i64>, segment: Segment) -> usize {
            let audio = Arc::clone(&self.audio);
            ms.step_by(21).filter(|ms| !self.push(&audio, *ms, segment)).count()
        }

        /// Begin and end of the silence in a segment, in milliseconds.
        fn silence_in(&self, number: u64) -> Option<(i64, i64)> {
            let mut times = self.silence.iter().filter(|(_, s)| s.number == number).map(|(frame, _)| frame.dts);
            let first = times.next()?;
            let end = times.last().unwrap_or(first) + MediaTime::from_ticks(1_024, 48_000);
            Some((first.as_ms(), end.as_ms()))
        }
    }

    fn segment_at(ms: i64) -> Segment {
        Segment { number: (ms / 2_000) as u64, start: MediaTime::from_ms(ms / 2_000 * 2_000) }
    }

    /// Video with audio, interleaved every 40 ms.
    fn with_audio(feed: &mut Feed, ms: std::ops::Range<i64>) {
        for start in ms.step_by(40) {
            feed.video(start..start + 40);
            feed.audio(start..start + 40, segment_at(start));
        }
    }

    #[test]
    fn stream_without_audio_packets_is_filled_after_the_longest_interleaving() {
        let mut feed = Feed::new();
        feed.video(0..1_480);
        assert!(feed.silence.is_empty());
        feed.video(1_480..1_560);
        assert_eq!(feed.silence_in(0), Some((0, 1_514)));
        feed.video(1_560..4_001);
        assert_eq!(feed.silence_in(0), Some((0, 1_984)));
        assert_eq!(feed.silence_in(1), Some((2_000, 3_984)));
    }

    #[test]
    fn gap_is_filled_from_its_begin_to_its_end_across_segments() {
        let mut feed = Feed::new();
        with_audio(&mut feed, 0..1_720);
        assert!(feed.silence.is_empty());
        feed.video(1_720..4_720);
        assert!(feed.silence_in(0).is_none(), "{:?}", feed.silence_in(0));
        let (begin, _) = feed.silence_in(1).unwrap();
        assert_eq!(begin, 2_000);
        with_audio(&mut feed, 4_720..6_001);
        let (begin, end) = feed.silence_in(2).unwrap();
        assert!(begin == 4_000 && end > 4_690, "{begin} {end}");
        assert!(feed.silence_in(3).is_none());
    }

    #[test]
    fn pause_of_video_and_audio_is_not_filled() {
        let mut feed = Feed::new();
        with_audio(&mut feed, 0..1_720);
        let after = Segment { number: 1, start: MediaTime::from_ms(7_000) };
        let video = Arc::clone(&feed.video);
        assert!(feed.push(&video, 7_000, after));
        assert_eq!(feed.audio(7_000..7_200, after), 0);
        assert!(feed.silence.is_empty(), "{:?}", feed.silence_in(0));
    }

    #[test]
    fn rest_of_a_segment_is_filled_at_its_end() {
        let mut feed = Feed::new();
        with_audio(&mut feed, 0..1_520);
        feed.video(1_520..2_001);
        let (begin, end) = feed.silence_in(0).unwrap();
        assert!((1_520..1_560).contains(&begin) && end > 1_960, "{begin} {end}");
    }

    #[test]
    fn audio_in_blocks_of_more_than_a_second_is_left_alone() {
        let mut feed = Feed::new();
        for block in 0..10 {
            let (start, end) = (block * 1_200, (block + 1) * 1_200);
            feed.video(start..end);
            assert_eq!(feed.audio(start..end, segment_at(end - 40)), 0);
        }
        assert!(feed.silence.is_empty(), "{:?}", feed.silence_in(0));
    }

    #[test]
    fn audio_that_returns_ends_the_silence_and_audio_of_filled_time_is_omitted() {
        let mut feed = Feed::new();
        feed.video(0..1_600);
        assert_eq!(feed.silence_in(0), Some((0, 1_557)));
        // The packet at 1,552 ms begins within the last silent one, and those before are too late.
        assert_eq!(feed.audio(1_300..1_600, segment_at(0)), 12);
        feed.video(1_600..1_800);
        assert_eq!(feed.silence_in(0), Some((0, 1_557)));
    }

    #[test]
    fn silence_reaches_audio_that_returns_later_than_video() {
        let mut feed = Feed::new();
        feed.video(0..1_600);
        assert_eq!(feed.audio(1_700..1_800, segment_at(0)), 0);
        assert_eq!(feed.silence_in(0), Some((0, 1_685)));
    }

    #[test]
    fn node_that_joins_in_a_gap_adds_the_same_silence_from_its_second_segment_on() {
        let mut from_start = Feed::new();
        with_audio(&mut from_start, 0..2_520);
        from_start.video(2_520..8_001);
        let mut later = Feed::new();
        later.video(4_000..8_001);
        assert!(later.silence_in(3).is_some());
        assert_eq!(from_start.silence_in(3), later.silence_in(3));
    }

    #[test]
    fn jump_of_the_clock_is_not_filled() {
        let mut feed = Feed::new();
        let video = Arc::clone(&feed.video);
        feed.push(&video, 0, segment_at(0));
        feed.push(&video, 3_600_000, segment_at(0));
        assert!(feed.silence.is_empty());
    }
}
