//! A cluster on AWS: daemons that find their role in tags, their registry and secrets in AWS
//! (moto), and each other in a real database.

use headwater_tests::cluster::{self, Node, RELAY_SECRET};
use headwater_tests::http;
use headwater_tests::mongo::Database;
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::wait::{self, WAIT_TIMEOUT};
use nix::sys::signal::Signal;

/// Waits at most ten seconds until `/readyz` has this status and contains `part`.
fn wait_readyz(node: &Node, status: u16, part: &str) {
    let health = node.health().unwrap();
    wait::until_within(std::time::Duration::from_secs(10), part, || {
        let response = http::get(health, "/readyz").ok()?;
        (response.status == status && response.text().contains(part)).then_some(())
    })
    .unwrap();
}

fn playlist_status(node: &Node) -> u16 {
    http::get(node.http().unwrap(), "/live/streams/demo.m3u8").unwrap().status
}

/// Starts ffmpeg as a player that prints one line per frame.
fn start_player(url: &str) -> Option<Process> {
    let mut command = publish::ffmpeg_command()?;
    command.args(["-i", url, "-c", "copy", "-f", "framecrc", "-flush_packets", "1", "-"]);
    Some(Process::start(&mut command).unwrap())
}

fn frame_count(player: &Process) -> usize {
    player.lines().iter().filter(|line| line.starts_with("0,") || line.starts_with("1,")).count()
}

fn wait_frames(player: &Process, more: usize, what: &str) {
    let target = frame_count(player) + more;
    wait::until(what, || (frame_count(player) >= target).then_some(())).unwrap();
    assert!(player.is_running());
}

#[test]
fn nodes_serve_any_stream_and_survive_a_database_outage() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws_without_relay_secret(database.uri()).unwrap() else { return };
    let start = |id: &str, role: &str| Node::start(&aws, id, role).unwrap();
    let publish =
        |node: &Node, name: &str| publish::start_ffmpeg(&Source::default(), &node.rtmp_url(name).unwrap()).unwrap();
    let play_from = |node: &Node, name: &str| start_player(&node.rtmp_url(name).unwrap());

    // Without the relay secret a node stays out of service and reports what is missing.
    let origin = start("i-0origin", "origin");
    let line = origin.daemon.process().wait_line("out of service").unwrap();
    assert!(line.contains("secretsmanager:GetSecretValue of headwater/demo/relay did not work"), "{line}");
    cluster::add_relay_secret(&aws).unwrap();
    origin.wait_ready().unwrap();
    let (edge, other) = (start("i-0edge", "edge"), start("i-0other", "origin"));
    edge.wait_ready().unwrap();
    other.wait_ready().unwrap();

    let Some(_publisher) = publish(&origin, "live/demo") else { return };
    origin.wait_live("live/demo").unwrap();
    // One owner: a second publisher is refused on any node.
    let second = publish(&other, "live/demo").unwrap();
    let refused = other.daemon.process().wait_line("publish refused").unwrap();
    assert!(refused.contains("stream live/demo is already live on node i-0origin"), "{refused}");
    assert!(!second.wait_exit(WAIT_TIMEOUT).unwrap().success());
    assert!(
        !other.daemon.process().lines().iter().any(|l| l.contains("publish accepted")),
        "the second publisher was accepted first"
    );
    let player = play_from(&edge, "live/demo").unwrap();
    wait_frames(&player, 50, "frames from the edge");
    wait::until("a playlist from the edge", || (playlist_status(&edge) == 200).then_some(())).unwrap();

    // After a viewer at the third node has left, that node knows the stream but no longer relays
    // it.
    let visitor = play_from(&other, "live/demo").unwrap();
    wait_frames(&visitor, 1, "a frame from the other origin");
    drop(visitor);
    other.daemon.process().wait_line("relay from an origin ended").unwrap();

    // Without the database players continue, and a known stream can still be joined.
    database.kill().unwrap();
    for node in [&origin, &edge, &other] {
        node.daemon.process().wait_line("registry is unreachable, the node keeps serving").unwrap();
    }
    for node in [&origin, &edge, &other] {
        wait_readyz(node, 503, "the registry receives no heartbeat from this node");
    }
    wait_frames(&player, 50, "frames during the registry outage");
    for node in [&edge, &other] {
        let late = play_from(node, "live/demo").unwrap();
        wait_frames(&late, 25, "frames for a player that joins during the registry outage");
    }
    // A known name is refused while its owner is alive, on every attempt.
    for _ in 0..2 {
        let second = publish(&other, "live/demo").unwrap();
        assert!(!second.wait_exit(WAIT_TIMEOUT).unwrap().success());
    }
    assert!(!other.daemon.process().lines().iter().any(|l| l.contains("publish accepted")), "two owners");
    // A new publisher is accepted, and registered later.
    let _new = publish(&other, "live/new").unwrap();
    other.wait_live("live/new").unwrap();

    database.restart().unwrap();
    for node in [&origin, &edge, &other] {
        node.daemon.process().wait_line("registry is reachable again").unwrap();
        wait_readyz(node, 200, "\"lease\":\"ok\"");
    }
    let found = wait::until("the new stream from the edge", || {
        play_from(&edge, "live/new").filter(|p| {
            wait::until_within(std::time::Duration::from_secs(3), "a frame", || (frame_count(p) > 0).then_some(()))
                .is_ok()
        })
    })
    .unwrap();
    wait_frames(&found, 25, "frames of the new stream");
    wait_frames(&player, 25, "frames after the outage");

    // The node shuts down cleanly, and no log contains a secret.
    edge.daemon.process().signal(Signal::SIGTERM);
    assert_eq!(edge.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    for node in [&origin, &edge, &other] {
        let lines = node.daemon.process().lines();
        assert!(!lines.iter().any(|l| l.contains(RELAY_SECRET) || l.contains(database.uri())), "a secret in the log");
        assert!(!lines.iter().any(|l| l.contains("panicked at")));
    }
}
