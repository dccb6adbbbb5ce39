//! Tests of part boundaries and of omitted tracks and segments.

use std::sync::Arc;

use bytes::Bytes;
use mp4_atom::{Decode, Moof};

use super::{Output, Packager};
use crate::codec::{aac, av1, h265, opus};
use crate::segment::Segmenter;
use crate::{Codec, Frame, MediaTime, Track, VideoTrack};

/// Baseline 3.0, one SPS, one PPS.
const AVCC: &[u8] = &[
    1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88, 1, 0, 4, 0x68,
    0xcb, 0x83, 0xcb,
];

fn video_track() -> Arc<Track> {
    let size = VideoTrack { width: 640, height: 480, reorder_frames: None };
    Arc::new(Track {
        codec: Codec::H264,
        config: Bytes::from_static(AVCC),
        codec_string: Some("avc1.42c01e".to_owned()),
        video: Some(size),
        audio: None,
    })
}

fn audio_track() -> Arc<Track> {
    Arc::new(aac::track(Bytes::from_static(&[0x11, 0x90])).unwrap())
}

fn frame(track: &Arc<Track>, ms: i64, key: bool) -> Frame {
    let t = MediaTime::from_ms(ms);
    Frame { track: Arc::clone(track), dts: t, pts: t, key, payload: Bytes::from_static(b"payload") }
}

/// Returns 30 video frames and 46.875 audio packets per second, with timestamps in whole
/// milliseconds as in RTMP, and a key frame every `gop` video frames.
fn stream(video: &Arc<Track>, audio: Option<&Arc<Track>>, frame_count: i64, gop: i64) -> Vec<Frame> {
    let mut frames: Vec<Frame> = (0..frame_count).map(|n| frame(video, (n * 1_000 + 15) / 30, n % gop == 0)).collect();
    if let Some(audio) = audio {
        frames.extend((0..frame_count * 1_600 / 1_024).map(|n| frame(audio, (n * 1_024 + 24) / 48, true)));
    }
    frames.sort_by_key(|f| f.dts);
    frames
}

fn segmenter() -> Segmenter {
    Segmenter::new(MediaTime::from_ms(2_000), MediaTime::from_ms(200))
}

/// Announces all tracks, as RTMP does, and omits the first `skip` frames.
fn package(frames: &[Frame], skip: usize) -> Vec<Output> {
    let audio = frames.iter().map(|f| &f.track).find(|t| t.audio.is_some()).cloned();
    package_with_audio(frames, skip, audio)
}

fn package_with_audio(frames: &[Frame], skip: usize, audio: Option<Arc<Track>>) -> Vec<Output> {
    let mut segmenter = segmenter();
    let video = frames.iter().map(|f| &f.track).find(|t| t.video.is_some()).cloned();
    let mut packager = Packager::new(segmenter.targets());
    packager.announce(video.as_ref(), audio.as_ref());
    let mut out = Vec::new();
    for (i, frame) in frames.iter().enumerate() {
        let segment = segmenter.on_frame(frame);
        if i >= skip {
            packager.set_targets(segmenter.targets());
            packager.push(frame, segment, &mut out);
        }
    }
    packager.finish(&mut out);
    out
}

/// Returns one line per segment, such as `0: 200i 200 end`: the number, `!` after a discontinuity,
/// the part durations in milliseconds, and `i` for an independent part.
fn describe(out: &[Output]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for o in out {
        match o {
            Output::Begin { segment, discontinuity, .. } => {
                lines.push(format!("{}{}:", segment.number, if *discontinuity { "!" } else { "" }));
            }
            Output::Part(p) => {
                let line = lines.last_mut().unwrap();
                *line += &format!(" {}{}", p.duration.as_ms(), if p.independent { "i" } else { "" });
            }
            Output::End { .. } => *lines.last_mut().unwrap() += " end",
            Output::Refused(e) => lines.push(e.to_string()),
            Output::TooLong => *lines.last_mut().unwrap() += " too long",
        }
    }
    lines
}

#[test]
fn thirty_frames_per_second_make_parts_of_six_frames() {
    let (v, a) = (video_track(), audio_track());
    let whole = "0: 200i 200 200 200 200 200 200 200 200 200 end";
    let out = package(&stream(&v, Some(&a), 90, 60), 0);
    assert_eq!(describe(&out), [whole, "1: 200i 200 200 200 201 end"]);
}

#[test]
fn late_packager_omits_the_incomplete_segment_and_then_makes_the_same_parts() {
    let (v, a) = (video_track(), audio_track());
    let frames = stream(&v, Some(&a), 180, 30);
    let second_key = frames.iter().rposition(|f| f.key && f.dts.as_ms() == 1_000 && f.track == v).unwrap();
    let (early, late) = (package(&frames, 0), package(&frames, second_key));
    assert_eq!(describe(&late), describe(&early)[1..]);
    let bytes = |out: &[Output]| {
        out.iter()
            .filter_map(|o| if let Output::Part(p) = o { Some(p.bytes.clone()) } else { None })
            .collect::<Vec<_>>()
    };
    assert!(bytes(&early).ends_with(&bytes(&late)));
}

#[test]
fn parts_have_equal_duration_at_common_frame_rates() {
    let v = video_track();
    let check = |fps: i64, expect: &str| {
        let frames: Vec<Frame> = (0..fps * 2).map(|n| frame(&v, (n * 1_000 + fps / 2) / fps, n == 0)).collect();
        let line = describe(&package(&frames, 0)).remove(0);
        assert!(line.starts_with(expect), "{fps} frames per second: {line}");
    };
    check(24, "0: 208i 209 208 208 209 208");
    check(25, "0: 200i 200 200");
    check(60, "0: 200i 200 200");
    check(10, "0: 200i 200 200");
    check(12, "0: 220i 197 220");
}

#[test]
fn audio_only_stream_makes_independent_parts() {
    let a = audio_track();
    let frames: Vec<Frame> = (0..100).map(|n| frame(&a, n * 1_024 / 48, true)).collect();
    let lines = describe(&package(&frames, 0));
    assert!(lines[0].starts_with("0: 192i 192i 192i"), "{lines:?}");
}

#[test]
fn late_audio_track_begins_with_the_next_segment_at_a_discontinuity() {
    let (v, a) = (video_track(), audio_track());
    let mut frames = stream(&v, Some(&a), 180, 60);
    frames.retain(|f| f.track == v || f.dts.as_ms() > 500);
    let out = package_with_audio(&frames, 0, None);
    let inits: Vec<_> = out
        .iter()
        .filter_map(|o| match o {
            Output::Begin { init, discontinuity, .. } => Some((init.audio.is_some(), *discontinuity)),
            _ => None,
        })
        .collect();
    assert_eq!(inits, [(false, false), (true, true), (true, false)]);
}

#[test]
fn announced_track_without_packets_for_a_segment_is_omitted() {
    let (v, a) = (video_track(), audio_track());
    let mut segmenter = segmenter();
    let mut packager = Packager::new(segmenter.targets());
    packager.announce(Some(&v), Some(&a));
    let mut out = Vec::new();
    for f in stream(&v, None, 130, 60) {
        packager.push(&f, segmenter.on_frame(&f), &mut out);
    }
    let has_audio: Vec<_> = out
        .iter()
        .filter_map(|o| if let Output::Begin { init, .. } = o { Some(init.audio.is_some()) } else { None })
        .collect();
    assert_eq!(has_audio, [true, false, false]);
}

#[test]
fn segment_that_begins_without_a_key_frame_follows_one_that_was_received() {
    let v = video_track();
    let frames = stream(&v, None, 700, 100_000);
    let lines = describe(&package(&frames, 0));
    assert!(lines[0].starts_with("0: 200i 200 200"), "{lines:?}");
    assert!(lines[1].starts_with("1: 200 200 200"), "{lines:?}");
    // A packager that starts late waits for a segment that begins with a key frame.
    assert_eq!(describe(&package(&frames, 10)), [""; 0]);
}

#[test]
fn segment_beyond_the_size_limit_is_ended_until_the_next_key_frame() {
    let v = video_track();
    let mut frames = stream(&v, None, 130, 60);
    let large: Bytes = vec![0; 2 << 20].into();
    for frame in &mut frames[..60] {
        frame.payload = large.clone();
    }
    let lines = describe(&package(&frames, 0));
    assert!(lines[0].contains("too long") && lines[0].ends_with("end"), "{lines:?}");
    assert!(lines[1].starts_with("1!: 200i"), "{lines:?}");
}

#[test]
fn no_step_of_time_makes_a_segment_or_a_part_longer_than_its_limit() {
    let (video, audio) = (video_track(), audio_track());
    for jump_ms in [9_000, 59_000, 61_000, 2_147_483_000] {
        let mut frames = stream(&video, Some(&audio), 150, 30);
        for frame in frames.iter_mut().skip(100) {
            frame.dts = frame.dts + MediaTime::from_ms(jump_ms);
            frame.pts = frame.dts;
        }
        let mut segments = 0;
        for output in package(&frames, 0) {
            let (duration, limit_ms) = match output {
                Output::Begin { .. } => {
                    segments += 1;
                    continue;
                }
                Output::Part(part) => (part.duration, 220),
                Output::End { duration } => (duration, 10_499),
                other => panic!("{other:?}"),
            };
            assert!(duration <= MediaTime::from_ms(limit_ms), "{duration:?} after a step of {jump_ms} ms");
        }
        assert!(segments >= 2, "the stream continues after a step of {jump_ms} ms");
    }
}

/// 30 frames per second, without the frames for which `lost` returns true.
fn stream_without(lost: impl Fn(i64) -> bool, audio: Option<&Arc<Track>>) -> Vec<Frame> {
    let v = video_track();
    let mut frames = stream(&v, audio, 130, 60);
    frames.retain(|f| f.track != v || !lost((f.dts.as_ms() * 30 + 500) / 1_000));
    frames
}

#[test]
fn missing_frame_ends_a_part_at_its_limit_and_the_next_one_is_decoded_early() {
    let lines = describe(&package(&stream_without(|n| n == 17, None), 0));
    assert!(lines[0].starts_with("0: 200i 200 200 200"), "no part would end at the frame at 567 ms: {lines:?}");
    let out = package(&stream_without(|n| n == 6, None), 0);
    assert!(describe(&out)[0].starts_with("0: 220i 213 200 200"), "{:?}", describe(&out));
    let mut parts = out.iter().filter_map(|o| if let Output::Part(p) = o { Some(p) } else { None });
    let moof = Moof::decode(&mut parts.nth(1).unwrap().bytes.as_ref()).unwrap();
    let sample = moof.traf[0].trun[0].samples.iter().next().unwrap();
    let decoded = moof.traf[0].tfdt.as_ref().unwrap().base_media_decode_time;
    assert_eq!((decoded, sample.cts), (220 * 90, Some((233 - 220) * 90)), "decoded at 220 ms, presented at 233 ms");
}

#[test]
fn parts_contain_the_audio_of_a_pause_of_the_video() {
    let a = audio_track();
    let out = package(&stream_without(|n| (10..40).contains(&n), Some(&a)), 0);
    let lines = describe(&out);
    assert!(lines[0].starts_with("0: 200i 220 220 220 220 220"), "{lines:?}");
    let runs = |part: &super::Part| Moof::decode(&mut part.bytes.as_ref()).unwrap().traf.len();
    let parts: Vec<_> = out.iter().filter_map(|o| if let Output::Part(p) = o { Some(runs(p)) } else { None }).collect();
    assert_eq!(parts[..7], [2, 2, 1, 1, 1, 1, 2], "audio and video, or audio only");
}

#[test]
fn no_part_describes_a_pause_of_the_whole_stream() {
    let out = package(&stream_without(|n| (10..40).contains(&n), None), 0);
    let line = &describe(&out)[0];
    assert!(line.starts_with("0: 200i 220 "), "{line}");
    let durations =
        out.iter().filter_map(|o| if let Output::End { duration } = o { Some(duration.as_ms()) } else { None });
    assert_eq!(durations.collect::<Vec<_>>()[0], 2_000, "the segment has its true duration");
}

#[test]
fn pause_longer_than_a_segment_ends_it_and_causes_a_discontinuity() {
    let frames: Vec<Frame> = stream_without(|_| false, None)
        .into_iter()
        .map(|mut frame| {
            if frame.dts.as_ms() > 2_500 {
                frame.dts = frame.dts + MediaTime::from_ms(3_000);
                frame.pts = frame.dts;
            }
            frame
        })
        .collect();
    let lines = describe(&package(&frames, 0));
    assert!(lines[1].ends_with("133 end"), "{lines:?}");
    assert!(lines[2].starts_with("2!: 200 200"), "it continues without a key frame: {lines:?}");
}

#[test]
fn lost_frames_end_the_segment_and_cause_a_discontinuity() {
    let v = video_track();
    let mut segmenter = segmenter();
    let mut packager = Packager::new(segmenter.targets());
    let mut out = Vec::new();
    for (i, f) in stream(&v, None, 130, 60).iter().enumerate() {
        let segment = segmenter.on_frame(f);
        if i == 20 {
            packager.abandon(&mut out);
        }
        if !(20..40).contains(&i) {
            packager.push(f, segment, &mut out);
        }
    }
    let lines = describe(&out);
    assert_eq!(lines[0], "0: 200i 200 200 66 end");
    assert!(lines[1].starts_with("1!: 200i"), "{lines:?}");
}

#[test]
fn decode_times_match_the_frames_and_audio_is_regular() {
    let (v, a) = (video_track(), audio_track());
    let out = package(&stream(&v, Some(&a), 90, 60), 0);
    let mut audio_end = 0;
    for part in out.iter().filter_map(|o| if let Output::Part(p) = o { Some(p) } else { None }) {
        let moof = Moof::decode(&mut part.bytes.as_ref()).unwrap();
        for traf in &moof.traf {
            let base = traf.tfdt.as_ref().unwrap().base_media_decode_time;
            let total: u64 = traf.trun[0].samples.iter().map(|s| u64::from(s.duration.unwrap())).sum();
            if traf.tfhd.track_id == 1 {
                assert_eq!(total, part.duration.to_ticks(90_000) as u64, "{:?}", part.duration);
            } else {
                // Within a millisecond at a segment boundary, exact otherwise.
                assert!(base.abs_diff(audio_end) <= 48, "{base} after {audio_end}");
                assert!(traf.trun[0].samples.iter().all(|s| s.duration == Some(1_024)));
                audio_end = base + total;
            }
        }
    }
}

#[test]
fn track_with_invalid_configuration_is_refused_and_the_others_continue() {
    let broken = Arc::new(Track { codec: Codec::Opus, config: Bytes::new(), ..(*audio_track()).clone() });
    let v = video_track();
    let mut frames = vec![frame(&v, 0, true), frame(&broken, 1, true), frame(&v, 33, false)];
    frames.push(frame(&v, 2_000, true));
    frames.push(frame(&v, 2_033, false));
    let lines = describe(&package_with_audio(&frames, 0, None));
    assert!(lines[0].starts_with("0: "), "{lines:?}");
    assert!(lines[1].contains("Opus"), "{lines:?}");
    assert!(lines[2].starts_with("1: "), "{lines:?}");
}

#[test]
fn initialization_segment_contains_the_sample_entry_of_every_codec() {
    let with = |codec, config: &[u8]| {
        Arc::new(Track { codec, config: Bytes::copy_from_slice(config), ..(*video_track()).clone() })
    };
    let hvcc = [
        1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0x5d, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 1, 0x20, 0, 1, 0,
        3, 0x40, 1, 0x0c,
    ];
    let check = |video: Arc<Track>, audio: Arc<Track>, entries: [&[u8]; 4]| {
        let init = super::Init::new(Some(video), Some(audio)).unwrap();
        for entry in entries {
            let found = init.bytes.windows(4).any(|w| w == entry);
            assert!(found, "no {}", String::from_utf8_lossy(entry));
        }
    };
    let opus = Arc::new(opus::track(opus::head(2, 312)).unwrap());
    check(video_track(), audio_track(), [b"avc1", b"avcC", b"mp4a", b"esds"]);
    check(with(Codec::H265, &hvcc), opus, [b"hvc1", b"hvcC", b"Opus", b"dOps"]);
    check(with(Codec::Av1, &[0x81, 0x05, 0x0c, 0]), audio_track(), [b"av01", b"av1C", b"mp4a", b"esds"]);
}

#[test]
fn no_prefix_and_no_flipped_bit_of_a_configuration_panics() {
    for (codec, golden) in [(Codec::H264, AVCC), (Codec::H265, h265::tests::HVCC), (Codec::Av1, av1::tests::AV1C)] {
        let init = |config| super::Init::new(Some(Arc::new(Track { codec, config, ..(*video_track()).clone() })), None);
        assert!(init(Bytes::from_static(golden)).is_ok(), "{codec:?}");
        for end in 0..golden.len() {
            let _ = init(Bytes::from_static(&golden[..end]));
        }
        for at in 0..golden.len() {
            for bit in 0..8 {
                let mut flipped = golden.to_vec();
                flipped[at] ^= 1 << bit;
                let _ = init(flipped.into());
            }
        }
    }
}
