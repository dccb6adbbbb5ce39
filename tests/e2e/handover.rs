//! A node that ends while people watch, and one that is full: viewers go to another node and see nothing of it.

use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Engine, Options, wait_status};
use headwater_tests::http;
use headwater_tests::metadata::Fake;
use headwater_tests::mongo::Database;
use headwater_tests::moto::Moto;
use headwater_tests::pion::Viewer;
use headwater_tests::publish::{self, Source};
use headwater_tests::wait::{self, PATIENCE};

struct Node {
    daemon: Daemon,
    metadata: Fake,
}

impl Node {
    fn start(id: &str, role: &str, moto: &Moto) -> Self {
        let tags =
            [("headwater:role", role), ("headwater:cluster", "demo"), ("headwater:registry", "secret:demo/registry")];
        let metadata = Fake::start(&tags).unwrap();
        metadata.change(|s| s.id = id.to_owned());
        let mut options = Options::with(|c| {
            c.metadata.endpoint = metadata.address();
            c.relay.listen = "127.0.0.1:0".parse().unwrap();
            c.node.drain_ms = 30_000.try_into().unwrap();
        });
        options.environment = moto.environment();
        let daemon = Daemon::start(options).unwrap();
        daemon.process().line("node ready").unwrap();
        Self { daemon, metadata }
    }

    fn http(&self) -> std::net::SocketAddr {
        self.daemon.endpoints(None).unwrap().http
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure that was measured")]
fn fifty_webrtc_viewers_of_an_edge_that_is_scaled_in_move_and_none_is_lost() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(moto) = Moto::start().unwrap() else { return };
    moto.secret("demo/registry", database.uri()).unwrap();
    moto.secret("headwater/demo/relay", "the relay secret of this test").unwrap();
    let origin = Node::start("i-0origin", "origin", &moto);
    let (edge, other) = (Node::start("i-0edge", "edge", &moto), Node::start("i-0other", "edge", &moto));
    let rtmp = origin.daemon.endpoints(None).unwrap().rtmp;
    let source = Source::default();
    let Some(_publisher) = publish::ffmpeg(&source, &format!("rtmp://{rtmp}/live/demo")).unwrap() else { return };
    wait_status(origin.http(), "live/demo", "pictures", |s| s.video.is_some()).unwrap();
    let url = format!("http://127.0.0.1:{}/live/whep/demo", edge.http().port());
    let Some(crowd) = Viewer::start(&url, &["-crowd", "50", "-seconds", "60"]).unwrap() else { return };
    crowd.wait_playing().unwrap();
    wait_status(edge.http(), "live/demo", "fifty viewers", |s| s.viewers.webrtc == 50).unwrap();

    edge.metadata.change(|s| s.target_lifecycle_state = Some("Terminated".to_owned()));
    let report = crowd.moved().unwrap();
    println!("hand-over of 50 WebRTC viewers: {report:?}");
    assert_eq!((report.playing, report.moved, report.lost), (50, 50, 0), "{report:?}");
    assert!(report.max_gap_ms < 1_000.0, "{report:?}");
    edge.daemon.process().line("all viewers have moved").unwrap();
    assert_eq!(edge.daemon.process().exit(PATIENCE).unwrap().code(), Some(0));
    assert_eq!(http::get(other.daemon.endpoints(None).unwrap().health, "/readyz").unwrap().status, 200);
}

#[test]
fn a_full_node_turns_newcomers_away_with_a_sentence_and_keeps_who_is_there() {
    let engine = Engine::start(Options::with(|c| c.limits.max_viewers = 1.try_into().unwrap())).unwrap();
    let Some(_publisher) = publish::ffmpeg(&Source::default(), &engine.rtmp_url("live/a")).unwrap() else { return };
    wait_status(engine.http(), "live/a", "pictures", |s| s.video.is_some()).unwrap();
    let play = || {
        let mut player = publish::ffmpeg_command().unwrap();
        player.args(["-i", &engine.rtmp_url("live/a"), "-f", "null", "-"]);
        headwater_tests::process::Process::start(&mut player).unwrap()
    };
    let first = play();
    wait_status(engine.http(), "live/a", "the one viewer", |s| s.viewers.rtmp == 1).unwrap();
    let offer = [("content-type", "application/sdp")];
    let answers = [
        http::request(engine.http(), "POST", "/live/whep/a", &offer, b"v=0").unwrap(),
        http::get(engine.http(), "/live/streams/a.m3u8").unwrap(),
    ];
    for answer in answers {
        let text = answer.text();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{text}");
        assert!(text.contains("too_many_viewers") && text.contains("already serves 1 viewers"), "{text}");
    }
    assert!(!play().exit(PATIENCE).unwrap().success(), "a second RTMP player was let in");
    assert!(first.is_running());
    drop(first);
    wait::until("room for the next one", || {
        (http::get(engine.http(), "/live/streams/a.m3u8").ok()?.status == 200).then_some(())
    })
    .unwrap();
}
