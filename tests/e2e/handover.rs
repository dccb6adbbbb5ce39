//! A node that drains while it has viewers, and a node that is full: viewers continue at another
//! node.

use headwater_tests::cluster::{self, Node};
use headwater_tests::engine::{Engine, Options, wait_status};
use headwater_tests::http;
use headwater_tests::mongo::Database;
use headwater_tests::pion::Viewer;
use headwater_tests::publish::{self, Source};
use headwater_tests::wait::{self, WAIT_TIMEOUT};

#[test]
#[expect(clippy::print_stdout, reason = "the figure that was measured")]
fn fifty_webrtc_viewers_of_a_drained_edge_move_without_loss() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    let start = |id: &str, role: &str| {
        let node = Node::start_with(&aws, id, role, |o| o.config.node.drain_ms = 30_000.try_into().unwrap()).unwrap();
        node.wait_ready().unwrap();
        node
    };
    let origin = start("i-0origin", "origin");
    let (edge, other) = (start("i-0edge", "edge"), start("i-0other", "edge"));
    let url = origin.rtmp_url("live/demo").unwrap();
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    origin.wait_live("live/demo").unwrap();
    let at = edge.http().unwrap();
    let url = format!("http://127.0.0.1:{}/live/whep/demo", at.port());
    let Some(viewers) = Viewer::start(&url, &["-movers", "50", "-seconds", "60"]).unwrap() else { return };
    viewers.wait_playing().unwrap();
    wait_status(at, "live/demo", "fifty viewers", |s| s.viewers.webrtc == 50).unwrap();

    edge.metadata.change(|s| s.target_lifecycle_state = Some("Terminated".to_owned()));
    let report = viewers.wait_migration_report().unwrap();
    println!("handover of 50 WebRTC viewers: {report:?}");
    assert_eq!((report.playing, report.moved, report.lost), (50, 50, 0), "{report:?}");
    assert!(report.max_gap_ms < 1_000.0, "{report:?}");
    edge.daemon.process().wait_line("all viewers have moved").unwrap();
    assert_eq!(edge.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    assert_eq!(http::get(other.health().unwrap(), "/readyz").unwrap().status, 200);
}

#[test]
fn full_node_refuses_new_viewers_with_a_reason_and_keeps_existing_ones() {
    let engine = Engine::start(Options::with(|c| c.limits.max_viewers = 1.try_into().unwrap())).unwrap();
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &engine.rtmp_url("live/a")).unwrap() else {
        return;
    };
    wait_status(engine.http(), "live/a", "video", |s| s.video.is_some()).unwrap();
    let play = || {
        let mut player = publish::ffmpeg_command().unwrap();
        player.args(["-i", &engine.rtmp_url("live/a"), "-f", "null", "-"]);
        headwater_tests::process::Process::start(&mut player).unwrap()
    };
    let first = play();
    wait_status(engine.http(), "live/a", "the one viewer", |s| s.viewers.rtmp == 1).unwrap();
    let offer = [("content-type", "application/sdp")];
    let responses = [
        http::request(engine.http(), "POST", "/live/whep/a", &offer, b"v=0").unwrap(),
        http::get(engine.http(), "/live/streams/a.m3u8").unwrap(),
    ];
    for response in responses {
        let text = response.text();
        assert_eq!((response.status, response.header("retry-after")), (503, Some("1")), "{text}");
        assert!(text.contains("too_many_viewers") && text.contains("already serves 1 viewers"), "{text}");
    }
    assert!(!play().wait_exit(WAIT_TIMEOUT).unwrap().success(), "a second RTMP player was accepted");
    assert!(first.is_running());
    drop(first);
    wait::until("capacity for the next viewer", || {
        (http::get(engine.http(), "/live/streams/a.m3u8").ok()?.status == 200).then_some(())
    })
    .unwrap();
}

#[test]
fn full_edge_names_another_edge_with_the_stream_and_capacity() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    let start = |id: &str, role: &str, max_viewers: usize| {
        let change = |o: &mut Options| o.config.limits.max_viewers = max_viewers.try_into().unwrap();
        let node = Node::start_with(&aws, id, role, change).unwrap();
        node.wait_ready().unwrap();
        node
    };
    let (origin, edge) = (start("i-0origin", "origin", 1), start("i-0edge", "edge", 1));
    let other = start("i-0other", "edge", 100);
    let url = origin.rtmp_url("live/demo").unwrap();
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    origin.wait_live("live/demo").unwrap();
    let mut player = publish::ffmpeg_command().unwrap();
    player.args(["-i", &edge.rtmp_url("live/demo").unwrap(), "-f", "null", "-"]);
    let _viewer = headwater_tests::process::Process::start(&mut player).unwrap();
    let at = edge.http().unwrap();
    wait_status(at, "live/demo", "the one viewer", |s| s.viewers.rtmp == 1).unwrap();

    let base = format!("http://127.0.0.1:{}", other.http().unwrap().port());
    let offer = [("content-type", "application/sdp")];
    for (method, path, address) in [
        ("POST", "/live/whep/demo", format!("{base}/live/whep/demo")),
        ("GET", "/live/streams/demo.m3u8", format!("{base}/live/streams/demo.m3u8")),
        ("GET", "/live/streams/demo/playlist.m3u8", format!("{base}/live/streams/demo.m3u8")),
    ] {
        // The daemon learns of the other node when it polls the registry.
        let response = wait::until("a response that names the other node", || {
            let response = http::request(at, method, path, &offer, b"").unwrap();
            assert_eq!(
                (response.status, response.header("retry-after")),
                (503, Some("1")),
                "{path}: {}",
                response.text()
            );
            response.header("link").is_some().then_some(response)
        })
        .unwrap();
        let body: serde_json::Value = response.json().unwrap();
        assert_eq!(response.header("link"), Some(format!("<{address}>; rel=\"alternate\"").as_str()), "{path}");
        assert_eq!(
            (&body["error"], &body["elsewhere"]),
            (&"too_many_viewers".into(), &address.as_str().into()),
            "{path}"
        );
    }
    // The stream is available at that address.
    wait::until("the stream at the other node", || {
        (http::get(other.http().unwrap(), "/live/streams/demo.m3u8").ok()?.status == 200).then_some(())
    })
    .unwrap();
}
