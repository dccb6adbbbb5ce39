//! Tests of segment boundaries and of the constants that the first segment decides.

use std::sync::Arc;

use bytes::Bytes;

use crate::segment::{Segment, Segmenter};
use crate::targets::Targets;
use crate::{AudioTrack, Codec, Frame, MediaKind, MediaTime, Track, VideoTrack};

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
    let mut segmenter = Segmenter::new(MediaTime::from_ms(2_000), MediaTime::from_ms(200));
    let got: Vec<u64> = frames.iter().map(|&(c, ms, key)| segmenter.on_frame(&frame(c, ms, key)).number).collect();
    assert_eq!(got, expect);
}

#[test]
fn segments_begin_at_key_frames_once_the_target_is_reached() {
    use Codec::{Aac, H264};
    check(
        &[(H264, 0, true), (H264, 1_000, true), (Aac, 1_900, true), (H264, 1_999, true), (H264, 2_040, false)],
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
    let mut segmenter = Segmenter::new(MediaTime::from_ms(2_000), MediaTime::from_ms(200));
    let mut with = |ms, config: &'static [u8]| {
        let mut frame = frame(Codec::H264, ms, true);
        frame.track = Arc::new(Track { config: Bytes::from_static(config), ..(*frame.track).clone() });
        segmenter.on_frame(&frame)
    };
    assert_eq!(with(0, b"a"), Segment { number: 0, start: MediaTime::ZERO });
    assert_eq!(with(500, b"a"), Segment { number: 0, start: MediaTime::ZERO });
    assert_eq!(with(1_000, b"b"), Segment { number: 1, start: MediaTime::from_ms(1_000) });
}

/// Frames at a fixed rate with key frames at these frame numbers, and the segments that they begin:
/// number, whether the first frame is a key frame, and start in milliseconds.
fn cut(frames_per_sec: i64, secs: i64, is_key: impl Fn(i64) -> bool) -> (Vec<(u64, bool, i64)>, Targets) {
    let mut segmenter = Segmenter::new(MediaTime::from_ms(2_000), MediaTime::from_ms(200));
    let mut segments: Vec<(u64, bool, i64)> = Vec::new();
    for n in 0..frames_per_sec * secs {
        let frame = frame(Codec::H264, n * 1_000 / frames_per_sec, is_key(n));
        let segment = segmenter.on_frame(&frame);
        if segments.last().is_none_or(|&(number, ..)| number != segment.number) {
            segments.push((segment.number, frame.key, segment.start.as_ms()));
        }
    }
    (segments, segmenter.targets())
}

fn secs(targets: Targets) -> u32 {
    targets.segment_secs.unwrap().get()
}

#[test]
fn target_duration_is_the_longer_of_the_setting_and_the_first_gop() {
    for (gop, expect) in [(30, 2), (60, 2), (45, 3), (75, 3), (250, 9), (300, 10)] {
        let (segments, targets) = cut(30, 40, |n| n % gop == 0);
        assert_eq!(secs(targets), expect, "a key frame every {gop} frames");
        assert!(segments.iter().all(|&(_, key, _)| key) && targets.independent, "{segments:?}");
    }
}

#[test]
fn nothing_is_decided_before_the_first_segment_ends() {
    let (_, targets) = cut(30, 2, |n| n % 60 == 0);
    assert_eq!(targets, Targets::new(MediaTime::from_ms(200)));
}

#[test]
fn later_longer_gop_is_cut_at_a_frame_that_is_no_key_frame() {
    // A key frame every 2 s, from 4 s on every 7 s.
    let (segments, targets) = cut(30, 25, |n| if n < 120 { n % 60 == 0 } else { (n - 120) % 210 == 0 });
    assert_eq!((secs(targets), targets.independent), (2, false));
    let starts: Vec<i64> = segments.iter().map(|s| s.2).collect();
    assert!(starts.windows(2).all(|w| w[1] - w[0] < 2_500), "{segments:?}");
    assert!(starts.windows(2).all(|w| w[1] - w[0] >= 1_000), "numbers would overtake the clock: {segments:?}");
    let again = segments.iter().filter(|s| s.1 && s.2 > 4_000).count();
    assert!(again >= 2, "segments begin at key frames again: {segments:?}");
}

#[test]
fn stream_without_key_frames_is_cut_after_ten_seconds() {
    let (segments, targets) = cut(30, 40, |n| n == 0);
    assert_eq!(secs(targets), 10);
    assert!(segments.len() >= 3 && segments[1].2 < 10_500, "{segments:?}");
}

#[test]
fn extra_key_frames_at_scene_cuts_do_not_make_segments_too_long() {
    // The encoder restarts its interval of 60 frames at each scene cut.
    let keys = [0, 60, 120, 160, 220, 280, 300, 360, 420, 455, 515, 575];
    let (segments, targets) = cut(30, 20, |n| keys.contains(&n));
    assert_eq!(secs(targets), 2);
    assert!(segments.windows(2).all(|w| w[1].2 - w[0].2 < 2_500), "{segments:?}");
    let cuts = segments.iter().filter(|&&(_, key, _)| !key).count();
    assert!(cuts <= 1, "at a scene cut less than a second after a segment began: {segments:?}");
}

#[test]
fn stream_whose_frames_last_longer_than_a_part_has_no_parts() {
    for (frames_per_sec, expect) in [(30, true), (5, true), (4, false), (2, false), (1, false)] {
        let (segments, targets) = cut(frames_per_sec, 12, |n| n % (2 * frames_per_sec) == 0);
        assert_eq!(targets.has_parts, expect, "{frames_per_sec} frames per second");
        assert!(segments.iter().all(|&(_, key, _)| key), "{frames_per_sec} frames per second: {segments:?}");
    }
}

#[test]
fn pause_begins_a_segment_and_decides_nothing() {
    let mut segmenter = Segmenter::new(MediaTime::from_ms(2_000), MediaTime::from_ms(200));
    let mut at = |ms, key| segmenter.on_frame(&frame(Codec::H264, ms, key)).number;
    assert_eq!([at(0, true), at(33, false), at(67, false)], [0; 3]);
    assert_eq!([at(20_000, true), at(20_033, false)], [1; 2]);
    assert_eq!(segmenter.targets().segment_secs.map(std::num::NonZeroU32::get), Some(10));
    assert!(segmenter.targets().has_parts, "one long interval is not a frame rate");
}

#[test]
fn part_target_of_an_audio_stream_fits_its_packets() {
    for (rate_hz, expect_ms) in
        [(48_000, 220), (44_100, 220), (32_000, 220), (24_000, 220), (22_050, 233), (8_000, 257)]
    {
        let mut segmenter = Segmenter::new(MediaTime::from_ms(2_000), MediaTime::from_ms(200));
        let mut packet = frame(Codec::Aac, 0, true);
        let audio = AudioTrack { sample_rate_hz: rate_hz, channels: 2, samples_per_frame: 1_024 };
        packet.track = Arc::new(Track { audio: Some(audio), ..(*packet.track).clone() });
        segmenter.on_frame(&packet);
        assert_eq!(segmenter.targets().part.as_ms(), expect_ms, "{rate_hz} Hz");
    }
}
