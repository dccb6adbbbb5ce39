//! A cluster as AWS would see it: daemons that find their role in tags, their registry and secrets in AWS (moto), and each
//! other in a real database.

use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Options, wait_status};
use headwater_tests::http;
use headwater_tests::metadata::Fake;
use headwater_tests::mongo::Database;
use headwater_tests::moto::Moto;
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::wait::{self, PATIENCE};
use nix::sys::signal::Signal;

const SECRET: &str = "the relay secret of this test";

/// An instance of the cluster with its metadata.
struct Node {
    daemon: Daemon,
    _metadata: Fake,
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
        });
        options.environment = moto.environment();
        Self { daemon: Daemon::start(options).unwrap(), _metadata: metadata }
    }

    fn ready(&self) {
        self.daemon.process().line("node ready").unwrap();
    }

    fn rtmp(&self, name: &str) -> String {
        format!("rtmp://{}/{name}", self.daemon.endpoints(None).unwrap().rtmp)
    }

    fn wait_live(&self, name: &str) {
        let http = self.daemon.endpoints(None).unwrap().http;
        wait_status(http, name, "pictures", |s| s.video.is_some()).unwrap();
    }

    /// Waits, ten seconds at most, until `/readyz` answers so.
    fn wait_ready(&self, status: u16, part: &str) {
        let health = self.daemon.endpoints(None).unwrap().health;
        wait::until_within(std::time::Duration::from_secs(10), part, || {
            let answer = http::get(health, "/readyz").ok()?;
            (answer.status == status && answer.text().contains(part)).then_some(())
        })
        .unwrap();
    }

    fn playlist(&self) -> u16 {
        http::get(self.daemon.endpoints(None).unwrap().http, "/live/streams/demo.m3u8").unwrap().status
    }
}

/// ffmpeg as a player: a line on standard output for every frame.
fn play(url: &str) -> Option<Process> {
    let mut command = publish::ffmpeg_command()?;
    command.args(["-i", url, "-c", "copy", "-f", "framecrc", "-flush_packets", "1", "-"]);
    Some(Process::start(&mut command).unwrap())
}

fn frames(player: &Process) -> usize {
    player.lines().iter().filter(|line| line.starts_with("0,") || line.starts_with("1,")).count()
}

fn wait_frames(player: &Process, more: usize, what: &str) {
    let target = frames(player) + more;
    wait::until(what, || (frames(player) >= target).then_some(())).unwrap();
    assert!(player.is_running());
}

#[test]
fn nodes_find_each_other_serve_any_stream_and_outlive_their_database() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(moto) = Moto::start().unwrap() else { return };
    moto.secret("demo/registry", database.uri()).unwrap();

    // Without the relay's secret a node stays out of service, and says what it lacks.
    let origin = Node::start("i-0origin", "origin", &moto);
    let line = origin.daemon.process().line("out of service").unwrap();
    assert!(line.contains("secretsmanager:GetSecretValue of headwater/demo/relay did not work"), "{line}");
    moto.secret("headwater/demo/relay", SECRET).unwrap();
    origin.ready();
    let (edge, other) = (Node::start("i-0edge", "edge", &moto), Node::start("i-0other", "origin", &moto));
    edge.ready();
    other.ready();

    let Some(_publisher) = publish::ffmpeg(&Source::default(), &origin.rtmp("live/demo")).unwrap() else { return };
    origin.wait_live("live/demo");
    // One owner: a second publisher is refused on any node.
    let second = publish::ffmpeg(&Source::default(), &other.rtmp("live/demo")).unwrap().unwrap();
    assert!(!second.exit(PATIENCE).unwrap().success());
    let player = play(&edge.rtmp("live/demo")).unwrap();
    wait_frames(&player, 50, "pictures from the edge");
    wait::until("a playlist from the edge", || (edge.playlist() == 200).then_some(())).unwrap();

    // The database dies: what plays goes on, and a stream that is known can still be joined.
    database.kill().unwrap();
    for node in [&origin, &edge, &other] {
        node.daemon.process().line("registry is away").unwrap();
    }
    for node in [&origin, &edge, &other] {
        node.wait_ready(503, "the registry does not hear from this node");
    }
    wait_frames(&player, 50, "pictures while the registry is away");
    let late = play(&edge.rtmp("live/demo")).unwrap();
    wait_frames(&late, 25, "pictures for who comes while the registry is away");
    // A new publisher is taken, and registered later.
    let _new = publish::ffmpeg(&Source::default(), &other.rtmp("live/new")).unwrap().unwrap();
    other.wait_live("live/new");

    database.restart().unwrap();
    for node in [&origin, &edge, &other] {
        node.daemon.process().line("registry is back").unwrap();
        node.wait_ready(200, "\"lease\":\"ok\"");
    }
    let found = wait::until("the new stream from the edge", || {
        play(&edge.rtmp("live/new")).filter(|p| {
            wait::until_within(std::time::Duration::from_secs(3), "a picture", || (frames(p) > 0).then_some(())).is_ok()
        })
    })
    .unwrap();
    wait_frames(&found, 25, "pictures of the new stream");
    wait_frames(&player, 25, "pictures after the outage");

    // Leaving in order, and no secret in any log.
    edge.daemon.process().signal(Signal::SIGTERM);
    assert_eq!(edge.daemon.process().exit(PATIENCE).unwrap().code(), Some(0));
    for node in [&origin, &edge, &other] {
        let lines = node.daemon.process().lines();
        assert!(!lines.iter().any(|l| l.contains(SECRET) || l.contains(database.uri())), "a secret in the log");
        assert!(!lines.iter().any(|l| l.contains("panicked at")));
    }
}
