//! OBS as the publisher, on a virtual screen: with default settings, with the setting that the
//! documentation recommends, and with a wrong and the right publish key.

use std::process::Command;

use headwater_tests::engine::{Engine, Options};
use headwater_tests::pion::Viewer;
use headwater_tests::process::Process;
use headwater_tests::temp::TempDir;
use headwater_tests::{decode, tools, wait};
use nix::sys::signal::Signal;

use crate::access::ffmpeg::app_with_key;
use crate::access::nodes::{Contents, Node};
use crate::probe;

/// OBS on a virtual screen. Both are killed on drop, OBS first.
struct Obs {
    obs: Process,
    _screen: Process,
    _home: TempDir,
}

/// Settings that prevent the dialogs of the first start.
const GLOBAL_CONFIG: &str = "[General]\nFirstRun=true\nPre19Defaults=false\nPre21Defaults=false\nPre23Defaults=false\n\
    Pre24.1Defaults=false\nEnableAutoUpdates=false\n\
    [Basic]\nProfile=Untitled\nProfileDir=Untitled\nSceneCollection=Untitled\nSceneCollectionFile=Untitled\n";

/// One colour source that fills the canvas; with an empty scene OBS shows a dialog before it
/// streams.
const SCENE_COLLECTION: &str = r#"{
    "current_scene": "Scene", "current_program_scene": "Scene", "name": "Untitled", "scene_order": [{"name": "Scene"}],
    "sources": [
        {"id": "color_source_v3", "name": "Colour", "settings": {"color": 4288230240, "width": 640, "height": 360}},
        {"id": "scene", "name": "Scene", "settings": {"id_counter": 1, "items": [{"id": 1, "name": "Colour", "visible": true,
            "pos": {"x": 0.0, "y": 0.0}, "scale": {"x": 1.0, "y": 1.0}, "align": 5, "bounds_type": 0}]}}
    ]
}"#;

/// Simple output of OBS with its encoder settings for x264.
const SIMPLE_OUTPUT: &str =
    "[Output]\nMode=Simple\n[SimpleOutput]\nVBitrate=1000\nABitrate=96\nStreamEncoder=x264\nPreset=veryfast\n";

/// Starts OBS to publish to `server` with this stream key. `output` is the output section of its
/// profile. Returns `None` if OBS is not installed.
fn start_obs(server: &str, stream_key: &str, output: &str, encoder: Option<&str>) -> Option<Obs> {
    let (obs, xvfb) = (tools::find_program("obs")?, tools::find_program("Xvfb")?);
    let home = TempDir::new().unwrap();
    let profile = "obs-studio/basic/profiles/Untitled";
    home.write("obs-studio/global.ini", GLOBAL_CONFIG).unwrap();
    let video = "[Video]\nBaseCX=640\nBaseCY=360\nOutputCX=640\nOutputCY=360\nFPSType=0\nFPSCommon=30\n";
    home.write(&format!("{profile}/basic.ini"), format!("[General]\nName=Untitled\n{output}{video}")).unwrap();
    let service = serde_json::json!({
        "type": "rtmp_custom",
        "settings": { "server": server, "key": stream_key, "use_auth": false, "bwtest": false },
    });
    home.write(&format!("{profile}/service.json"), service.to_string()).unwrap();
    if let Some(encoder) = encoder {
        home.write(&format!("{profile}/streamEncoder.json"), encoder).unwrap();
    }
    home.write("obs-studio/basic/scenes/Untitled.json", SCENE_COLLECTION).unwrap();
    // Xvfb chooses a free display number and prints it on descriptor 1.
    let mut screen = Command::new(xvfb);
    screen.args(["-displayfd", "1", "-screen", "0", "1280x720x24", "+extension", "GLX", "-nolisten", "tcp"]);
    let screen = Process::start(&mut screen).unwrap();
    let number = wait::until("the number of the screen", || {
        screen.lines().into_iter().find(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit()))
    })
    .unwrap();
    let mut command = Command::new(obs);
    command
        .args(["--startstreaming", "--minimize-to-tray", "--multi", "--disable-shutdown-check", "--disable-updater"])
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path())
        .env("DISPLAY", format!(":{number}"))
        .env_remove("WAYLAND_DISPLAY")
        .env("LIBGL_ALWAYS_SOFTWARE", "1");
    Some(Obs { obs: Process::start(&mut command).unwrap(), _screen: screen, _home: home })
}

#[test]
fn default_obs_plays_over_rtmp_and_hls_with_a_notice_about_b_frames() {
    let engine = Engine::start(Options::default()).unwrap();
    let server = format!("rtmp://{}/live", engine.rtmp());
    let Some(obs) = start_obs(&server, "demo", SIMPLE_OUTPUT, None) else { return };
    let status = engine.wait_status("live/demo", "a notice", |s| !s.notices.is_empty()).unwrap();
    assert_eq!(status.notices[0].code, "b_frames");
    assert!(status.notices[0].message.contains("zerolatency"), "{}", status.notices[0].message);
    assert_eq!(status.video.map(|v| (v.width, v.height, v.b_frames)), Some((640, 360, true)));
    assert!(probe::decode(&engine.rtmp_url("live/demo"), 2).unwrap().0 >= 50);
    assert!(probe::decode(&engine.http_url("/live/streams/demo.m3u8"), 2).unwrap().0 >= 50);
    obs.obs.signal(Signal::SIGTERM);
    engine.wait_ended("live/demo").unwrap();
    assert_eq!(engine.panics(), [""; 0]);
}

#[test]
fn obs_with_zerolatency_has_no_notices_and_plays_over_webrtc() {
    let engine = Engine::start(Options::default()).unwrap();
    let server = format!("rtmp://{}/live", engine.rtmp());
    let output = "[Output]\nMode=Advanced\n[AdvOut]\nEncoder=obs_x264\nTrackIndex=1\nApplyServiceSettings=true\n";
    let encoder = r#"{"rate_control":"CBR","bitrate":1000,"keyint_sec":1,"preset":"veryfast","tune":"zerolatency"}"#;
    let Some(_obs) = start_obs(&server, "demo", output, Some(encoder)) else { return };
    let live = engine.wait_live("live/demo").unwrap();
    // Long enough to detect B-frames, which would appear in the first GOP.
    let later = engine
        .wait_status("live/demo", "some seconds of video", |s| s.received_bytes > live.received_bytes + 60_000)
        .unwrap();
    assert!(later.notices.is_empty(), "{:?}", later.notices);
    assert!(!later.video.unwrap().b_frames);
    assert!(probe::decode(&engine.rtmp_url("live/demo"), 2).unwrap().0 >= 50);
    // The setting makes the stream playable over WebRTC; ffmpeg decodes every received frame.
    let whep = engine.http_url("/live/whep/demo");
    let Some(viewer) = Viewer::start(&whep, &["-seconds", "3"]).unwrap() else { return };
    let report = viewer.wait_report().unwrap();
    assert_eq!((report.video.codec.as_str(), report.audio.codec.as_str()), ("video/H264", "audio/opus"));
    assert_eq!((report.video.lost, report.audio.lost), (0, 0), "{report:?}");
    assert!(report.video.frames >= 75 && report.audio.frames >= 100, "{report:?}");
    assert_eq!(decode::frame_hashes(&viewer.video_path()).unwrap().len() as u64, report.video.frames);
}

#[test]
fn obs_is_refused_with_a_wrong_key_and_publishes_with_the_right_one() {
    const KEY: &str = "the-right-publish-key";
    const WRONG_KEY: &str = "a-wrong-publish-key";
    let node = Node::start(&Contents { apps: vec![app_with_key(KEY)], ..Contents::default() }, &[]);
    let server = format!("rtmp://{}/live", node.rtmp());
    let Some(refused) = start_obs(&server, &format!("demo?key={WRONG_KEY}"), SIMPLE_OUTPUT, None) else { return };
    let line = node.process().wait_line("publish refused").unwrap();
    assert!(line.contains("app=live stream_id=demo ") && line.contains("The key is wrong."), "{line}");
    assert!(node.status("live/demo").unwrap().is_none());
    drop(refused);
    let _obs = start_obs(&server, &format!("demo?key={KEY}"), SIMPLE_OUTPUT, None).unwrap();
    node.wait_live("live/demo").unwrap();
    assert_eq!(probe::codecs(&node.rtmp_url("live/demo")).unwrap(), ["aac,audio", "h264,video"]);
    node.check_clean(&[KEY, WRONG_KEY]);
}
