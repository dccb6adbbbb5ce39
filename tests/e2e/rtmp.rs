//! RTMP publishing and playing, with ffmpeg and GStreamer as clients.

use std::process::Command;

use bytes::Bytes;
use headwater_tests::engine::{Engine, Options};
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::temp::TempDir;
use headwater_tests::tools;
use headwater_tests::wait::WAIT_TIMEOUT;
use nix::sys::signal::Signal;

use crate::probe;

#[test]
fn ffmpeg_publishes_and_plays_video_and_audio() {
    let engine = Engine::start(Options::default()).unwrap();
    let url = engine.rtmp_url("live/demo");
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    let status = engine.wait_live("live/demo").unwrap();
    assert!(status.notices.is_empty(), "{:?}", status.notices);
    assert_eq!(status.video.map(|v| (v.width, v.height, v.b_frames)), Some((320, 180, false)));
    let (frames, volume_db) = probe::decode(&url, 3).unwrap();
    assert!(frames >= 70, "{frames} frames in 3 s at 25 fps");
    assert!(volume_db > -30.0, "the volume of the tone is {volume_db} dB");
    assert_eq!(probe::codecs(&url).unwrap(), ["aac,audio", "h264,video"]);
    assert_eq!(engine.panics(), [""; 0]);
}

#[test]
fn gstreamer_publishes_with_both_of_its_sinks() {
    let Some(launch) = tools::find_program("gst-launch-1.0") else { return };
    let engine = Engine::start(Options::default()).unwrap();
    for (id, sink) in [("gst2", "rtmp2sink"), ("gst1", "rtmpsink")] {
        if !tools::has_gst_element(sink) {
            tools::skip_missing(&format!("GStreamer's {sink} is not installed"));
            continue;
        }
        let url = engine.rtmp_url(&format!("live/{id}"));
        let pipeline = format!(
            "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1 ! \
             x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! h264parse ! queue ! mux. \
             audiotestsrc is-live=true freq=440 ! audioconvert ! voaacenc ! aacparse ! queue ! mux. \
             flvmux streamable=true name=mux ! {sink} location={url}"
        );
        let _publisher = Process::start(Command::new(&launch).arg("-q").args(pipeline.split_whitespace())).unwrap();
        engine.wait_live(&format!("live/{id}")).unwrap();
        let (frames, volume_db) = probe::decode(&url, 2).unwrap();
        assert!(frames >= 45 && volume_db > -30.0, "{sink}: {frames} frames, {volume_db} dB");
    }
}

#[test]
fn second_publisher_is_refused_and_the_first_continues() {
    let engine = Engine::start(Options::default()).unwrap();
    let url = engine.rtmp_url("live/demo");
    let Some(first) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    let before = engine.wait_live("live/demo").unwrap();
    let second = publish::start_ffmpeg(&Source::default(), &url).unwrap().unwrap();
    assert!(!second.wait_exit(WAIT_TIMEOUT).unwrap().success());
    assert!(engine.process().wait_line("publish refused").unwrap().contains("live/demo"));
    let after =
        engine.wait_status("live/demo", "more bytes", |s| s.received_bytes > before.received_bytes + 50_000).unwrap();
    assert_eq!(after.started_at_ms, before.started_at_ms);
    assert!(first.is_running());
}

#[test]
fn stream_above_the_limit_is_denied_with_the_limit_and_the_first_continues() {
    let engine = Engine::start(Options::with(|c| c.node.max_streams = 1.try_into().unwrap())).unwrap();
    let mut first = RtmpClient::publisher(engine.rtmp(), "first").unwrap();
    let refusal = RtmpClient::publisher(engine.rtmp(), "second").unwrap_err();
    assert!(format!("{refusal:#}").contains("NetStream.Publish.Denied"), "{refusal:#}");
    let line = engine.process().wait_line("publish refused").unwrap();
    assert!(line.contains("this node already carries 1 streams"), "{line}");
    first.send_audio(0, Bytes::from_static(&[0xaf, 0, 0x12, 0x08])).unwrap();
    engine.wait_status("live/first", "audio", |s| s.audio.is_some()).unwrap();
    drop(first);
    engine.wait_ended("live/first").unwrap();
    RtmpClient::publisher(engine.rtmp(), "second").unwrap();
}

#[test]
fn unknown_app_is_refused_with_a_message() {
    let engine = Engine::start(Options::default()).unwrap();
    let Some(publisher) = publish::start_ffmpeg(&Source::default(), &engine.rtmp_url("nowhere/demo")).unwrap() else {
        return;
    };
    assert!(!publisher.wait_exit(WAIT_TIMEOUT).unwrap().success());
    assert!(publisher.lines().iter().any(|l| l.contains("There is no app of this name")), "{:?}", publisher.lines());
}

#[test]
fn killed_publisher_ends_the_stream_for_its_players() {
    let engine = Engine::start(Options::default()).unwrap();
    let url = engine.rtmp_url("live/demo");
    let Some(publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    engine.wait_live("live/demo").unwrap();
    let mut command = publish::ffmpeg_command().unwrap();
    let player = Process::start(command.args(["-i", &url, "-c", "copy", "-f", "null", "-"])).unwrap();
    engine.wait_status("live/demo", "a player", |s| s.viewers.rtmp == 1).unwrap();
    publisher.signal(Signal::SIGKILL);
    engine.wait_ended("live/demo").unwrap();
    assert!(player.wait_exit(WAIT_TIMEOUT).unwrap().success(), "{:?}", player.lines());
}

#[test]
fn b_frames_play_over_rtmp_with_a_notice_that_names_the_setting() {
    let engine = Engine::start(Options::default()).unwrap();
    let url = engine.rtmp_url("live/demo");
    let source = Source { b_frames: 2, ..Source::default() };
    let Some(_publisher) = publish::start_ffmpeg(&source, &url).unwrap() else { return };
    let status = engine.wait_status("live/demo", "a notice", |s| !s.notices.is_empty()).unwrap();
    assert_eq!(status.notices[0].code, "b_frames");
    assert!(status.notices[0].message.contains("zerolatency"), "{}", status.notices[0].message);
    let line = engine.process().wait_line("code=b_frames").unwrap();
    assert!(line.contains("stream=live/demo") && line.contains(&status.notices[0].message), "{line}");
    assert!(probe::decode(&url, 2).unwrap().0 >= 40);
}

#[test]
fn ffmpeg_publishes_and_plays_over_rtmps() {
    let folder = TempDir::new().unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = folder.write("certificate.pem", pair.cert.pem()).unwrap();
    let key = folder.write("key.pem", pair.signing_key.serialize_pem()).unwrap();
    let engine = Engine::start(Options::with(|c| {
        c.tls.certificate_file = Some(certificate);
        c.tls.key_file = Some(key);
    }))
    .unwrap();
    let url = format!("rtmps://{}/live/demo", engine.endpoints().rtmps.unwrap());
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    engine.wait_live("live/demo").unwrap();
    let (frames, volume_db) = probe::decode(&url, 2).unwrap();
    assert!(frames >= 45 && volume_db > -30.0, "{frames} frames, {volume_db} dB");
}

#[test]
fn player_that_joins_within_a_gop_starts_at_its_key_frame() {
    let engine = Engine::start(Options::default()).unwrap();
    let url = engine.rtmp_url("live/demo");
    // With a key frame every four seconds, nearly every player joins within a GOP.
    let source = Source { gop: 100, ..Source::default() };
    let Some(_publisher) = publish::start_ffmpeg(&source, &url).unwrap() else { return };
    engine.wait_status("live/demo", "a second of video", |s| s.received_bytes > 60_000).unwrap();
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "v", "-read_intervals", "%+#5"]);
    command.args(["-show_entries", "packet=flags", "-of", "csv=p=0", &url]);
    let player = Process::start(&mut command).unwrap();
    assert!(player.wait_exit(WAIT_TIMEOUT).unwrap().success(), "{:?}", player.lines());
    let flags = player.lines();
    assert!(flags[0].starts_with('K'), "the first packet is not a key frame: {flags:?}");
    assert!(flags.len() >= 5 && !flags[1].starts_with('K'), "{flags:?}");
}
