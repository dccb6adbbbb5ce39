//! The rules of RFC 8216bis for playlists that are reloaded, checked on every playlist of a stream:
//! from frames through segmenter, packager and window.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mp4_atom::{Decode, Moof};

use super::{Settings, Window};
use crate::cmaf::{Output, Packager, VIDEO_TRACK};
use crate::codec::aac;
use crate::segment::Segmenter;
use crate::{Codec, Frame, MediaKind, MediaTime, Track, VideoTrack};

fn ms(ms: i64) -> MediaTime {
    MediaTime::from_ms(ms)
}

fn video_track() -> Arc<Track> {
    let video = Some(VideoTrack { width: 640, height: 480, reorder_frames: Some(0) });
    Arc::new(Track { codec: Codec::H264, config: h264_config(), codec_string: None, video, audio: None })
}

/// Baseline 3.0, one SPS, one PPS.
fn h264_config() -> Bytes {
    Bytes::from_static(&[
        1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88, 1, 0, 4,
        0x68, 0xcb, 0x83, 0xcb,
    ])
}

/// A stream as a publisher sends it over RTMP, with timestamps in whole milliseconds.
struct Input {
    /// Frames per 1,001 seconds; 0: audio only.
    frames_per_1001_secs: i64,
    gop: i64,
    /// Configuration of the AAC track and duration of its packets in samples and Hz.
    audio: Option<(&'static [u8], i64, u32)>,
    secs: i64,
}

const AAC_48000: Option<(&[u8], i64, u32)> = Some((&[0x11, 0x90], 1_024, 48_000));
const AAC_22050: Option<(&[u8], i64, u32)> = Some((&[0x13, 0x90], 1_024, 22_050));

impl Input {
    /// `change` drops a video frame or moves it by milliseconds, by its number.
    fn frames(&self, mut change: impl FnMut(i64) -> Option<i64>) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut push = |track: &Arc<Track>, at_ms: i64, key: bool| {
            let payload = Bytes::from_static(b"payload");
            frames.push(Frame { track: Arc::clone(track), dts: ms(at_ms), pts: ms(at_ms), key, payload });
        };
        if let Some((config, samples, hz)) = self.audio {
            let track = Arc::new(aac::track(Bytes::from_static(config)).unwrap());
            for n in 0..self.secs * i64::from(hz) / samples {
                push(&track, n * samples * 1_000 / i64::from(hz), true);
            }
        }
        if self.frames_per_1001_secs > 0 {
            let track = video_track();
            for n in 0..self.secs * self.frames_per_1001_secs / 1_001 {
                if let Some(moved_ms) = change(n) {
                    let at_ms = n * 1_001_000 / self.frames_per_1001_secs;
                    push(&track, (at_ms + moved_ms).max(0), n % self.gop == 0);
                }
            }
        }
        frames.sort_by_key(|f| (f.dts, f.kind() != MediaKind::Video));
        frames
    }
}

/// What a recorder of every playlist has seen.
#[derive(Default)]
struct Recording {
    /// The lines that must be constant, of the first playlist.
    constants: Option<Vec<String>>,
    playlists: usize,
    /// Duration of each part in microseconds, by segment and index.
    parts: BTreeMap<(u64, u32), i64>,
    /// EXTINF of each segment in microseconds, and whether a discontinuity precedes it.
    segments: BTreeMap<u64, (i64, bool)>,
}

fn attribute(line: &str, name: &str) -> Option<i64> {
    let value = line.split_once(name)?.1.split([',', '\n']).next()?;
    Some((value.parse::<f64>().unwrap() * 1e6).round() as i64)
}

/// `9.1.m4s` is part 1 of segment 9.
fn resource_numbers(line: &str) -> Vec<u64> {
    let name = line.rsplit('/').next().unwrap();
    name.split('.').map_while(|n| n.parse().ok()).collect()
}

impl Recording {
    fn add(&mut self, text: &str) {
        self.playlists += 1;
        let is_constant = |line: &&str| {
            ["#EXT-X-TARGETDURATION", "#EXT-X-SERVER-CONTROL", "#EXT-X-PART-INF"].iter().any(|t| line.starts_with(t))
        };
        let constants: Vec<String> = text.lines().filter(is_constant).map(str::to_owned).collect();
        let first = self.constants.get_or_insert_with(|| constants.clone());
        assert_eq!(*first, constants, "changed in playlist {}", self.playlists);
        let (mut discontinuity, mut extinf) = (false, None);
        for line in text.lines() {
            if line == "#EXT-X-DISCONTINUITY" {
                discontinuity = true;
            } else if line.starts_with("#EXT-X-PART:") {
                let [segment, part] = resource_numbers(line)[..] else { panic!("{line}") };
                self.parts.insert((segment, part as u32), attribute(line, "DURATION=").unwrap());
            } else if line.starts_with("#EXTINF:") {
                extinf = attribute(line, "#EXTINF:");
            } else if !line.starts_with('#') {
                let [segment] = resource_numbers(line)[..] else { panic!("{line}") };
                self.segments.insert(segment, (extinf.take().unwrap(), std::mem::take(&mut discontinuity)));
            }
        }
    }

    fn constant(&self, name: &str) -> i64 {
        self.constants.iter().flatten().find_map(|line| attribute(line, name)).unwrap()
    }

    /// Checks the durations of RFC 8216bis §4.4.3.1, §4.4.3.7, §4.4.3.8 and §4.4.4.9. Returns the
    /// segments whose parts do not add up.
    fn check(&self) -> Vec<u64> {
        let target = self.constant("TARGETDURATION:");
        let part_target = self.constant("PART-TARGET=");
        assert!(self.constant("PART-HOLD-BACK=") >= 3 * part_target);
        assert!(self.constant(",HOLD-BACK=") >= 3 * target);
        for (number, &(duration, _)) in &self.segments {
            let rounded = (duration as f64 / 1e6).round() as i64;
            assert!(rounded * 1_000_000 <= target, "segment {number} of {duration} us");
        }
        for (&(segment, index), &duration) in &self.parts {
            assert!(duration <= part_target, "part {index} of segment {segment}: {duration} us");
            let is_last = !self.parts.contains_key(&(segment, index + 1));
            let is_permitted = duration * 100 >= part_target * 85;
            assert!(is_last || is_permitted, "part {index} of segment {segment}: {duration} us");
        }
        let sum = |number: u64| self.parts.range((number, 0)..(number + 1, 0)).map(|(_, d)| d).sum::<i64>();
        let listed = self.segments.iter().filter(|&(&number, _)| self.parts.contains_key(&(number, 0)));
        // EXTINF and DURATION have five decimals.
        listed.filter(|&(&n, &(duration, _))| (sum(n) - duration).abs() > 200).map(|(&n, _)| n).collect()
    }
}

/// Records the playlist after every output, and returns the recording and the parts.
fn record(frames: &[Frame]) -> (Recording, Vec<crate::cmaf::Part>) {
    let mut segmenter = Segmenter::new(ms(2_000), ms(200));
    let mut packager = Packager::new(segmenter.targets());
    let settings =
        Settings { part_duration: ms(200), segment_duration: ms(2_000), listed_segments: 6, started_at_ms: 0 };
    let mut window = Window::new(settings);
    let track = |kind| frames.iter().map(|f| &f.track).find(|t| t.kind() == kind);
    packager.announce(track(MediaKind::Video), track(MediaKind::Audio));
    let (mut recording, mut parts, mut out) = (Recording::default(), Vec::new(), Vec::new());
    for frame in frames {
        let segment = segmenter.on_frame(frame);
        packager.set_targets(segmenter.targets());
        packager.push(frame, segment, &mut out);
        window.set_targets(segmenter.targets());
        for output in out.drain(..) {
            if let Output::Part(part) = &output {
                parts.push(part.clone());
            }
            window.apply(output);
            if window.is_playable() {
                recording.add(&window.media_playlist(""));
            }
        }
    }
    assert!(recording.playlists > 20, "only {} playlists", recording.playlists);
    (recording, parts)
}

/// The video samples of all parts: decoding time, duration and presentation time in ticks.
fn video_samples(parts: &[crate::cmaf::Part]) -> Vec<(i64, i64, i64)> {
    let mut samples = Vec::new();
    for part in parts {
        let moof = Moof::decode(&mut part.bytes.as_ref()).unwrap();
        for traf in moof.traf.iter().filter(|t| t.tfhd.track_id == VIDEO_TRACK) {
            let mut dts = traf.tfdt.as_ref().unwrap().base_media_decode_time as i64;
            for sample in &traf.trun[0].samples {
                let duration = i64::from(sample.duration.unwrap());
                samples.push((dts, duration, dts + sample.cts.unwrap_or(0)));
                dts += duration;
            }
        }
    }
    samples
}

fn thirty_frames_per_second() -> Input {
    Input { frames_per_1001_secs: 30_030, gop: 60, audio: AAC_48000, secs: 30 }
}

/// Numbers in 0..bound that are the same in every run.
fn pseudo_random(seed: u64) -> impl FnMut(i64) -> i64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as i64
    }
}

#[test]
fn regular_streams_keep_every_rule_and_their_parts_add_up() {
    for frames_per_1001_secs in [24_000, 24_024, 25_025, 30_000, 30_030, 50_050, 60_000, 60_060, 15_015, 12_012, 8_008]
    {
        let gop = 2 * frames_per_1001_secs / 1_001;
        let input = Input { frames_per_1001_secs, gop, audio: AAC_48000, secs: 20 };
        let (recording, _) = record(&input.frames(|_| Some(0)));
        assert_eq!(recording.check(), [0; 0], "{frames_per_1001_secs} frames in 1,001 s");
    }
    for audio in [AAC_48000, AAC_22050] {
        let input = Input { frames_per_1001_secs: 0, gop: 1, audio, secs: 20 };
        let (recording, _) = record(&input.frames(|_| Some(0)));
        assert_eq!(recording.check(), [0; 0]);
    }
}

#[test]
fn one_missing_frame_of_600_changes_no_rule() {
    for lost in 200..260 {
        let frames = thirty_frames_per_second().frames(|n| (n != lost).then_some(0));
        let (recording, parts) = record(&frames);
        assert_eq!(recording.check(), [0; 0], "frame {lost}");
        assert_eq!(
            video_samples(&parts).len(),
            frames.iter().filter(|f| f.kind() == MediaKind::Video).count() - in_open_part(&frames, &parts)
        );
    }
}

/// The number of video frames at the end that belong to no part yet.
fn in_open_part(frames: &[Frame], parts: &[crate::cmaf::Part]) -> usize {
    let newest = video_samples(parts).last().map_or(0, |s| s.2);
    frames.iter().filter(|f| f.kind() == MediaKind::Video && f.pts.to_ticks(90_000) > newest).count()
}

#[test]
fn jitter_of_25_ms_changes_no_rule_and_no_presentation_time() {
    for (seed, frames_per_1001_secs) in (1..=12).flat_map(|seed| [(seed, 25_025), (seed, 30_030), (seed, 60_060)]) {
        let mut random = pseudo_random(seed);
        let gop = 2 * frames_per_1001_secs / 1_001;
        let input = Input { frames_per_1001_secs, gop, audio: AAC_48000, secs: 20 };
        // At most up to the next frame, so that the order stays.
        let reach = (1_001_000 / frames_per_1001_secs).min(25);
        let frames = input.frames(|_| Some(random(reach)));
        let (recording, parts) = record(&frames);
        recording.check();
        let samples = video_samples(&parts);
        let expect = frames.iter().filter(|f| f.kind() == MediaKind::Video).map(|f| f.pts.to_ticks(90_000));
        let got: Vec<i64> = samples.iter().map(|s| s.2).collect();
        assert_eq!(got, expect.take(got.len()).collect::<Vec<_>>(), "seed {seed}");
        for pair in samples.windows(2) {
            let (end, next) = (pair[0].0 + pair[0].1, pair[1].0);
            assert!(pair[0].1 > 0 && (next - end).abs() <= 25 * 90, "decoding times {pair:?}, seed {seed}");
        }
        for part in &parts {
            let in_part: i64 = video_samples(std::slice::from_ref(part)).iter().map(|s| s.1).sum();
            assert!(in_part <= 220 * 90, "a part with {in_part} ticks of video, seed {seed}");
        }
    }
}

#[test]
fn lost_and_late_frames_at_random_change_no_rule() {
    for seed in 1..=60 {
        let mut random = pseudo_random(seed);
        let mut late_ms = 0;
        let frames = thirty_frames_per_second().frames(|_| {
            if random(200) == 0 {
                late_ms += random(4_000);
            }
            (random(10) > 0).then(|| late_ms + random(25))
        });
        let (recording, _) = record(&frames);
        recording.check();
    }
}

#[test]
fn gop_that_becomes_longer_changes_no_rule() {
    for gop in [90, 200, 1_000] {
        let mut frames = thirty_frames_per_second().frames(|_| Some(0));
        for frame in frames.iter_mut().filter(|f| f.kind() == MediaKind::Video && f.dts >= ms(10_000)) {
            frame.key = (frame.dts.as_ms() * 30 + 500) / 1_000 % gop == 0;
        }
        let (recording, _) = record(&frames);
        assert_eq!(recording.check(), [0; 0], "a key frame every {gop} frames");
    }
}

#[test]
fn slow_frames_from_the_start_make_a_playlist_without_parts() {
    let input = Input { frames_per_1001_secs: 2_002, gop: 4, audio: None, secs: 60 };
    let (recording, _) = record(&input.frames(|_| Some(0)));
    assert_eq!(recording.parts.len(), 0);
    assert!(recording.segments.len() > 20);
    assert!(recording.segments.values().all(|&(duration, discontinuity)| duration == 2_000_000 && !discontinuity));
}
