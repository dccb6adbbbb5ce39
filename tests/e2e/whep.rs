//! WebRTC playback over WHEP: ffmpeg publishes, Pion plays, ffmpeg decodes what Pion received.

use headwater_tests::engine::{Engine, Options};
use headwater_tests::pion::{Report, Viewer};
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::temp::TempDir;
use headwater_tests::{decode, http, tools, wait};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::time::Duration;

const STREAM_NAME: &str = "live/a";
const SDP_CONTENT_TYPE: (&str, &str) = ("content-type", "application/sdp");

/// Starts an engine with a live stream of the default source.
fn start_live_stream() -> Option<(Engine, Process)> {
    let engine = Engine::start(dual_stack_options()).unwrap();
    let publisher = publish::start_ffmpeg(&Source::default(), &engine.rtmp_url(STREAM_NAME)).unwrap()?;
    engine.wait_live(STREAM_NAME).unwrap();
    Some((engine, publisher))
}

fn dual_stack_options() -> Options {
    Options::with(|c| c.node.addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()])
}

fn whep_url(engine: &Engine) -> String {
    engine.http_url("/live/whep/a")
}

/// Value of a WebRTC metric; `name` includes its label, if any.
fn webrtc_metric(engine: &Engine, name: &str) -> u64 {
    metric_value(engine, &format!("headwater_webrtc_{name}"))
}

fn resident_bytes(engine: &Engine) -> u64 {
    metric_value(engine, "process_resident_memory_bytes")
}

fn metric_value(engine: &Engine, name: &str) -> u64 {
    let text = http::get(engine.health(), "/metrics").unwrap().text();
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

fn ignored_datagrams(engine: &Engine, reason: &str) -> u64 {
    webrtc_metric(engine, &format!("ignored_datagrams_total{{reason=\"{reason}\"}}"))
}

/// Checks the report of an undisturbed viewer: no loss, sender reports, all frames decodable, the
/// tone.
fn check_viewer(viewer: &Viewer, seconds: u64, srtp: &str) -> Report {
    let report = viewer.wait_report().unwrap();
    assert_eq!((report.status, report.srtp.as_str()), (201, srtp), "{report:?}");
    assert_eq!((report.video.codec.as_str(), report.audio.codec.as_str()), ("video/H264", "audio/opus"));
    assert_eq!((report.video.lost, report.audio.lost), (0, 0), "{report:?}");
    assert!(report.video.sender_reports > 0 && report.audio.sender_reports > 0, "{report:?}");
    let lip_sync_ms = report.video.lip_sync_ms.unwrap();
    assert!(lip_sync_ms.abs() < 150, "video is {lip_sync_ms} ms later than audio");
    // The current GOP arrives at once: up to a second more than the time played.
    let frames = decode::frame_hashes(&viewer.video_path()).unwrap().len() as u64;
    assert_eq!(frames, report.video.frames);
    assert!(((seconds * 25 - 12)..=(seconds * 25 + 38)).contains(&frames), "{frames} frames in {seconds} s");
    let tone = decode::measure_tone(&viewer.audio_path()).unwrap();
    assert!(tone.energy_share > 0.9, "{tone:?}");
    // As the frames: the GOP arrives with its audio.
    assert!((-0.7..1.5).contains(&(tone.duration_secs - seconds as f64)), "{tone:?}");
    report
}

#[test]
fn pion_plays_video_and_audio_with_either_srtp_profile_until_delete() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    for (offered, taken) in
        [("any", "SRTP_AEAD_AES_128_GCM"), ("gcm", "SRTP_AEAD_AES_128_GCM"), ("sha1", "SRTP_AES128_CM_HMAC_SHA1_80")]
    {
        let Some(viewer) = Viewer::start(&whep_url(&engine), &["-srtp", offered, "-seconds", "3"]).unwrap() else {
            return;
        };
        viewer.wait_playing().unwrap();
        engine.wait_status(STREAM_NAME, "a WebRTC viewer", |s| s.viewers.webrtc == 1).unwrap();
        let report = check_viewer(&viewer, 3, taken);
        assert_eq!((report.delete_status, report.repeated_delete_status), (200, 404));
        assert!(report.answer_ms < 1_000.0 && report.first_packet_ms < 2_000.0, "{report:?}");
        engine.wait_status(STREAM_NAME, "no WebRTC viewer", |s| s.viewers.webrtc == 0).unwrap();
    }
    assert!(webrtc_metric(&engine, "sent_bytes_total") > 500_000);
    assert_eq!(engine.panics(), [""; 0]);
}

#[test]
fn frames_arrive_unchanged_over_ipv6_with_retransmitted_losses() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("source.flv");
    let source = Source { seconds: Some(20), ..Source::default() };
    let Some(encoder) = publish::encode_to_file(&source, &file).unwrap() else { return };
    assert!(encoder.wait_exit(wait::WAIT_TIMEOUT).unwrap().success());
    let sent = decode::frame_hashes(&file).unwrap();
    let engine = Engine::start(dual_stack_options()).unwrap();
    let mut command = publish::ffmpeg_command().unwrap();
    command.args(["-re", "-i"]).arg(&file).args(["-c", "copy", "-f", "flv", &engine.rtmp_url(STREAM_NAME)]);
    let _publisher = Process::start(&mut command).unwrap();
    engine.wait_live(STREAM_NAME).unwrap();
    let arguments = ["-bind", "::1", "-drop", "10", "-seconds", "4"];
    let Some(viewer) = Viewer::start(&whep_url(&engine), &arguments).unwrap() else { return };
    let report = check_viewer(&viewer, 4, "SRTP_AEAD_AES_128_GCM");
    assert_eq!(report.remote, "::1");
    assert!(report.video.dropped > 10, "{report:?}");
    let is_counted = || webrtc_metric(&engine, "retransmitted_packets_total") >= report.video.dropped;
    wait::until("the retransmissions to be counted", || is_counted().then_some(())).unwrap();
    let got = decode::frame_hashes(&viewer.video_path()).unwrap();
    // The viewer may stop in the middle of the last frame.
    let whole = &got[..got.len() - 1];
    assert!(sent.windows(whole.len()).any(|window| window == whole), "the frames are no contiguous part of the source");
}

/// Some encoders present every frame 40 ms after its decoding time, without B-frames.
#[test]
fn constant_offset_of_presentation_times_plays() {
    let engine = Engine::start(dual_stack_options()).unwrap();
    let Some(mut command) = publish::ffmpeg_command() else { return };
    command.args(Source::default().ffmpeg_arguments());
    command.args(["-bsf:v", "setts=pts=PTS+40", "-f", "flv", &engine.rtmp_url(STREAM_NAME)]);
    let _publisher = Process::start(&mut command).unwrap();
    engine.wait_live(STREAM_NAME).unwrap();
    let Some(viewer) = Viewer::start(&whep_url(&engine), &["-seconds", "3"]).unwrap() else { return };
    viewer.wait_playing().unwrap();
    check_viewer(&viewer, 3, "SRTP_AEAD_AES_128_GCM");
    let status = engine.wait_status(STREAM_NAME, "the video", |s| s.video.is_some()).unwrap();
    assert!(!status.video.unwrap().b_frames && status.notices.is_empty());
    assert_eq!(engine.panics(), [""; 0]);
}

#[test]
fn nacked_packets_are_resent_and_key_frame_requests_are_harmless() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    let arguments = ["-nack", "30", "-pli", "200", "-seconds", "3"];
    let Some(viewer) = Viewer::start(&whep_url(&engine), &arguments).unwrap() else { return };
    let report = check_viewer(&viewer, 3, "SRTP_AEAD_AES_128_GCM");
    assert_eq!((report.video.duplicates, report.pli_sent), (30, 200), "{report:?}");
    assert_eq!(webrtc_metric(&engine, "nacked_packets_total"), 30);
    assert_eq!(webrtc_metric(&engine, "key_frame_requests_total"), 200);
}

#[test]
fn garbage_replays_and_forged_requests_are_ignored_and_counted() {
    const EACH: u64 = 100;
    let Some((engine, _publisher)) = start_live_stream() else { return };
    let arguments = ["-attack", "100", "-seconds", "3"];
    let Some(viewer) = Viewer::start(&whep_url(&engine), &arguments).unwrap() else { return };
    let report = check_viewer(&viewer, 3, "SRTP_AEAD_AES_128_GCM");
    assert!(report.attacks.len() == 12 && report.attacks.values().all(|&n| n == EACH), "{report:?}");
    // Garbage, also from the viewer's own address, empty datagrams, and truncated requests.
    assert_eq!(ignored_datagrams(&engine, "Garbage"), 4 * EACH);
    assert_eq!(ignored_datagrams(&engine, "Replayed"), EACH);
    assert_eq!(ignored_datagrams(&engine, "WrongPassword"), EACH);
    assert_eq!(ignored_datagrams(&engine, "Rtp"), EACH);
    assert_eq!(ignored_datagrams(&engine, "BadRtcp"), EACH);
    assert!(
        ignored_datagrams(&engine, "UnknownUser") >= EACH && ignored_datagrams(&engine, "UnknownAddress") >= 2 * EACH
    );
    // Some ten thousand more must not leak memory: a hundred bytes each would exceed the limit.
    let before = resident_bytes(&engine);
    assert!(before > 0);
    let Some(viewer) = Viewer::start(&whep_url(&engine), &["-attack", "3000", "-seconds", "3"]).unwrap() else {
        return;
    };
    assert_eq!(viewer.wait_report().unwrap().status, 201);
    let grown = resident_bytes(&engine).saturating_sub(before);
    assert!(grown < 4 << 20, "the memory grew by {grown} bytes");
    assert_eq!(webrtc_metric(&engine, "sessions"), 0);
    assert_eq!(engine.panics(), [""; 0]);
}

#[test]
fn viewer_with_a_certificate_not_in_its_offer_receives_nothing() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    let Some(viewer) = Viewer::start(&whep_url(&engine), &["-wrong-fingerprint", "-seconds", "2"]).unwrap() else {
        return;
    };
    let report = viewer.wait_report().unwrap();
    assert_eq!((report.status, report.video.packets, report.audio.packets), (201, 0, 0), "{report:?}");
    assert_eq!(webrtc_metric(&engine, "wrong_certificates_total"), 1);
    assert_eq!((webrtc_metric(&engine, "packets_total"), webrtc_metric(&engine, "sessions")), (0, 0));
}

#[test]
fn viewers_are_disconnected_when_the_publisher_ends() {
    let Some((engine, publisher)) = start_live_stream() else { return };
    let arguments = ["-until-end", "-seconds", "20"];
    let Some(viewer) = Viewer::start(&whep_url(&engine), &arguments).unwrap() else { return };
    viewer.wait_playing().unwrap();
    publisher.signal(nix::sys::signal::Signal::SIGINT);
    let report = viewer.wait_report().unwrap();
    assert!(report.closed_by_server, "{report:?}");
    assert_eq!(report.delete_status, 404);
    engine.wait_ended(STREAM_NAME).unwrap();
}

#[test]
fn killed_viewer_is_removed_when_its_consent_expires() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    let Some(viewer) = Viewer::start(&whep_url(&engine), &["-seconds", "60"]).unwrap() else { return };
    viewer.wait_playing().unwrap();
    // Another viewer replays an old check from its address: it does not renew its consent.
    let Some(replaying) = Viewer::start(&whep_url(&engine), &["-seconds", "60", "-replay-check"]).unwrap() else {
        return;
    };
    replaying.wait_playing().unwrap();
    engine.wait_status(STREAM_NAME, "two WebRTC viewers", |s| s.viewers.webrtc == 2).unwrap();
    viewer.kill();
    // Consent expires after 30 s (RFC 7675 §5.1).
    wait::until_within(Duration::from_secs(45), "the viewer to be removed", || {
        (webrtc_metric(&engine, "sessions") == 0).then_some(())
    })
    .unwrap();
    engine.process().wait_line("reason=expired").unwrap();
    assert_eq!(engine.status(STREAM_NAME).unwrap().unwrap().viewers.webrtc, 0);
}

#[test]
fn stream_with_b_frames_is_refused_with_the_setting_to_change() {
    let engine = Engine::start(Options::default()).unwrap();
    let source = Source { b_frames: 2, ..Source::default() };
    let Some(_publisher) = publish::start_ffmpeg(&source, &engine.rtmp_url(STREAM_NAME)).unwrap() else { return };
    engine.wait_status(STREAM_NAME, "B-frames", |s| s.video.as_ref().is_some_and(|v| v.b_frames)).unwrap();
    let Some(viewer) = Viewer::start(&whep_url(&engine), &[]).unwrap() else { return };
    let report = viewer.wait_report().unwrap();
    let refusal: serde_json::Value = serde_json::from_str(&report.body).unwrap();
    assert_eq!((report.status, refusal["error"].as_str()), (406, Some("b_frames")));
    let status = engine.status(STREAM_NAME).unwrap().unwrap();
    let notice = status.notices.iter().find(|n| n.code == "b_frames").unwrap();
    assert_eq!(refusal["message"].as_str(), Some(notice.message.as_str()));
    assert!(notice.message.contains("OBS") && notice.message.contains("bframes=0"), "{}", notice.message);
}

#[test]
fn invalid_offers_are_refused_in_json() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    let check = |path: &str, headers: &[(&str, &str)], body: &[u8], status: u16, code: &str| {
        let response = http::request(engine.http(), "POST", path, headers, body).unwrap();
        let json: serde_json::Value = response.json().unwrap();
        assert_eq!((response.status, json["error"].as_str()), (status, Some(code)), "{path}");
        assert!(json["message"].as_str().is_some_and(|m| m.ends_with('.')), "{json}");
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    };
    check("/live/whep/nobody", &[SDP_CONTENT_TYPE], b"v=0\r\n", 404, "stream_not_found");
    check("/nothing/whep/a", &[SDP_CONTENT_TYPE], b"v=0\r\n", 404, "app_not_found");
    check("/live/whep/a", &[SDP_CONTENT_TYPE], b"not an offer", 400, "bad_sdp");
    check("/live/whep/a", &[SDP_CONTENT_TYPE], b"\xff\xfe", 400, "bad_sdp");
    check("/live/whep/a", &[SDP_CONTENT_TYPE], b"", 400, "bad_sdp");
    check("/live/whep/a", &[SDP_CONTENT_TYPE], &vec![b'a'; (64 << 10) + 1], 413, "body_too_large");
    check("/live/whep/a", &[("content-type", "application/json")], b"{}", 415, "wrong_content_type");
}

#[test]
fn hanging_worker_thread_makes_the_node_not_ready_until_it_runs_again() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    let ready = || {
        let response = http::get(engine.health(), "/readyz").unwrap();
        let body: serde_json::Value = response.json().unwrap();
        (response.status, body["checks"]["webrtc"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ready(), (200, "ok".to_owned()));
    // A debugger stops one thread and no other.
    let thread = thread_id(&engine, "webrtc-0");
    if let Err(e) = ptrace::attach(thread) {
        tools::skip_missing(&format!("a thread cannot be stopped here: {e}"));
        return;
    }
    waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
    wait::until("the node to be not ready", || (ready().0 == 503).then_some(())).unwrap();
    assert!(ready().1.starts_with("worker 0 has not responded for "), "{}", ready().1);
    ptrace::detach(thread, None).unwrap();
    wait::until("the node to be ready again", || (ready().0 == 200).then_some(())).unwrap();
    let Some(viewer) = Viewer::start(&whep_url(&engine), &["-seconds", "2"]).unwrap() else { return };
    check_viewer(&viewer, 2, "SRTP_AEAD_AES_128_GCM");
}

/// A thread of the engine, by its name.
fn thread_id(engine: &Engine, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", engine.process().pid())).unwrap();
    let named = |path: &std::path::Path| std::fs::read_to_string(path.join("comm")).is_ok_and(|n| n.trim() == name);
    let found = tasks.map(|t| t.unwrap().path()).find(|path| named(path)).unwrap();
    Pid::from_raw(found.file_name().unwrap().to_str().unwrap().parse().unwrap())
}
