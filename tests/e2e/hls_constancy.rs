//! HLS: what must not change while a player reloads a playlist, for publishers whose frames are
//! irregular. ffmpeg publishes; the test reloads as an LL-HLS player does.

use std::collections::BTreeMap;

use headwater_tests::engine::{Engine, Options};
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::wait;

use crate::probe;

const PLAYLIST: &str = "/live/streams/demo.m3u8";

/// Publishes the default source with these filters and encoder options, at timestamps in whole
/// milliseconds.
fn publish(engine: &Engine, filters: &str, encoder: &[&str]) -> Option<Process> {
    let mut command = publish::ffmpeg_command()?;
    command.args(Source::default().ffmpeg_arguments());
    command.args(["-vf", &format!("settb=1/1000,{filters}"), "-fps_mode", "passthrough", "-enc_time_base", "1:1000"]);
    command.args(encoder).args(["-f", "flv", &engine.rtmp_url("live/demo")]);
    let publisher = Process::start(&mut command).unwrap();
    engine.wait_live("live/demo").unwrap();
    Some(publisher)
}

/// What every playlist of a run listed.
#[derive(Debug, Default)]
struct Recording {
    /// The lines that must be constant, of the first playlist.
    constants: Vec<String>,
    /// DURATION of each part by segment and index.
    parts: BTreeMap<(u64, u64), f64>,
    /// EXTINF of each segment.
    segments: BTreeMap<u64, f64>,
}

/// `900/9.1.m4s` is part 1 of segment 9.
fn numbers(uri: &str) -> Vec<u64> {
    uri.rsplit('/').next().unwrap().split('.').map_while(|n| n.parse().ok()).collect()
}

fn number_after(line: &str, name: &str) -> Option<f64> {
    line.split_once(name)?.1.split(',').next()?.parse().ok()
}

impl Recording {
    /// Reloads until `segments` segments were listed. Each request waits for the next part.
    fn of(engine: &Engine, segments: usize) -> Self {
        let mut recording = Self::default();
        let mut path = PLAYLIST.to_owned();
        while recording.segments.len() < segments {
            let response = engine.get(&path).unwrap();
            assert_eq!(response.status, 200, "{path}: {}", response.text());
            let text = response.text();
            recording.add(&text);
            let hint = text.lines().find_map(|line| line.strip_prefix("#EXT-X-PRELOAD-HINT:TYPE=PART,URI="));
            let [msn, part] = numbers(hint.unwrap().trim_matches('"'))[..] else { panic!("{text}") };
            path = format!("{PLAYLIST}?_HLS_msn={msn}&_HLS_part={part}");
        }
        recording
    }

    fn add(&mut self, text: &str) {
        let tags = ["#EXT-X-TARGETDURATION", "#EXT-X-SERVER-CONTROL", "#EXT-X-PART-INF"];
        let is_constant = |line: &&str| tags.iter().any(|tag| line.starts_with(tag));
        let constants: Vec<String> = text.lines().filter(is_constant).map(str::to_owned).collect();
        if self.constants.is_empty() {
            self.constants.clone_from(&constants);
        }
        assert_eq!(constants, self.constants, "{text}");
        let mut extinf = None;
        for line in text.lines() {
            if let Some(uri) = line.strip_prefix("#EXT-X-PART:").and_then(|l| l.split('"').nth(1)) {
                let [segment, part] = numbers(uri)[..] else { panic!("{line}") };
                self.parts.insert((segment, part), number_after(line, "DURATION=").unwrap());
            } else if line.starts_with("#EXTINF:") {
                extinf = number_after(line, "#EXTINF:");
            } else if !line.starts_with('#') {
                self.segments.insert(numbers(line)[0], extinf.take().unwrap());
            }
        }
    }

    /// Checks durations against the targets (RFC 8216bis §4.4.3.1, §4.4.3.7, §4.4.4.9).
    fn check(&self) {
        let constant = |name| self.constants.iter().find_map(|line| number_after(line, name)).unwrap();
        let (target, part_target) = (constant("TARGETDURATION:"), constant("PART-TARGET="));
        for (number, secs) in &self.segments {
            assert!(secs.round() <= target, "segment {number} of {secs} s: {self:?}");
        }
        for (&(segment, part), &secs) in &self.parts {
            assert!(secs <= part_target, "part {part} of segment {segment}: {secs} s");
            let is_last = !self.parts.contains_key(&(segment, part + 1));
            assert!(is_last || secs >= 0.85 * part_target - 1e-9, "part {part} of segment {segment}: {secs} s");
        }
    }
}

/// One frame of 125 is missing: one at which a part would end.
#[test]
fn missing_frame_changes_no_target() {
    let engine = Engine::start(Options::default()).unwrap();
    let Some(_publisher) = publish(&engine, "select='not(eq(mod(n,125),55))'", &[]) else { return };
    let recording = Recording::of(&engine, 8);
    recording.check();
    assert_eq!(recording.constants[0], "#EXT-X-TARGETDURATION:2");
    assert!(recording.constants[2].ends_with("PART-TARGET=0.220"), "{:?}", recording.constants);
    assert!(recording.parts.values().any(|&secs| secs != 0.2), "no frame was missing: {:?}", recording.parts);
    let (frames, volume_db) = probe::decode(&engine.http_url(PLAYLIST), 3).unwrap();
    assert!(frames >= 70 && volume_db > -30.0, "{frames} frames, {volume_db} dB");
    assert_eq!(engine.panics(), [""; 0]);
}

#[test]
fn jitter_changes_no_target() {
    let engine = Engine::start(Options::default()).unwrap();
    let Some(_publisher) = publish(&engine, "setpts='PTS+floor(25*random(1))'", &[]) else { return };
    let recording = Recording::of(&engine, 8);
    recording.check();
    let durations: std::collections::BTreeSet<i64> =
        recording.parts.values().map(|secs| (secs * 1_000.0).round() as i64).collect();
    assert!(durations.len() > 5, "there was no jitter: {durations:?}");
    assert_eq!(engine.panics(), [""; 0]);
}

/// Key frames become rarer: the GOPs are cut, and ffmpeg plays on.
#[test]
fn longer_gop_changes_no_target_and_plays() {
    let engine = Engine::start(Options::default()).unwrap();
    let encoder = ["-g", "100000", "-keyint_min", "1", "-force_key_frames", "0,1,2,3,4,9,14,19,24,29,34,39,44"];
    let Some(_publisher) = publish(&engine, "null", &encoder) else { return };
    // Packaging starts with the first request.
    engine.get(PLAYLIST).unwrap();
    let tag = "#EXT-X-INDEPENDENT-SEGMENTS";
    wait::until("a segment without a key frame", || {
        let text = engine.get(PLAYLIST).ok()?.text();
        (text.contains("#EXTINF") && !text.contains(tag)).then_some(())
    })
    .unwrap();
    let recording = Recording::of(&engine, 8);
    recording.check();
    assert_eq!(recording.constants[0], "#EXT-X-TARGETDURATION:2");
    let (frames, volume_db) = probe::decode(&engine.http_url(PLAYLIST), 6).unwrap();
    assert!(frames >= 70 && volume_db > -30.0, "{frames} frames, {volume_db} dB");
    let status = engine.wait_status("live/demo", "a notice", |s| !s.notices.is_empty()).unwrap();
    assert_eq!(status.notices[0].code, "key_frame_interval");
    assert_eq!(engine.panics(), [""; 0]);
}

#[test]
fn two_frames_per_second_play_without_parts() {
    let engine = Engine::start(Options::default()).unwrap();
    let source = Source { fps: 2, gop: 4, ..Source::default() };
    let Some(_publisher) = publish::start_ffmpeg(&source, &engine.rtmp_url("live/demo")).unwrap() else { return };
    engine.wait_live("live/demo").unwrap();
    let text = engine.get(PLAYLIST).unwrap().text();
    assert!(text.contains("#EXTINF:2.00000,") && text.contains("#EXT-X-TARGETDURATION:2\n"), "{text}");
    assert!(!text.contains("PART") && !text.contains("PRELOAD"), "{text}");
    let (frames, volume_db) = probe::decode(&engine.http_url(PLAYLIST), 4).unwrap();
    assert!(frames >= 6 && volume_db > -30.0, "{frames} frames, {volume_db} dB");
}
