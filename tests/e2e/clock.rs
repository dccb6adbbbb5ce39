//! Nodes of a cluster whose wall clock is an hour fast or slow: they report it and stay out of
//! service. Because the database's clock decides every lease, they neither take over nor lose
//! streams.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use headwater_tests::autoscaling::{FakeAutoScaling, Lifecycle};
use headwater_tests::clock::FakeClock;
use headwater_tests::cluster::{self, Node};
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Options, status};
use headwater_tests::http;
use headwater_tests::metadata::FakeMetadata;
use headwater_tests::mongo::Database;
use headwater_tests::moto::Moto;
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::replica_set::FakeReplicaSet;
use headwater_tests::wait::{self, WAIT_TIMEOUT};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::readiness::wait_failing_check;

const HOUR_SECS: i64 = 3_600;
/// Lease of a stream.
const STREAM_LEASE: Duration = Duration::from_secs(15);
/// Log lines shown after a panic.
const MAX_BACKTRACE_LINES: usize = 80;

/// Environment of a node with this clock, with backtraces.
fn clock_environment(clock: &FakeClock) -> Vec<(&'static str, String)> {
    let mut environment = clock.environment();
    environment.push(("RUST_BACKTRACE", "1".to_owned()));
    environment
}

fn start_node(aws: &Moto, id: &str, clock: &FakeClock) -> Node {
    let node = Node::start_with(aws, id, "origin", |o| o.environment.extend(clock_environment(clock))).unwrap();
    node.wait_ready().unwrap();
    node
}

/// Checks that `headwaterd doctor`, run with the node's clock, reports only the clock.
fn check_doctor_reports_clock(node: &Node, aws: &Moto, clock: &FakeClock) {
    let environment = [aws.environment(), clock.environment()].concat();
    let output = node.daemon.run_command(&["doctor", "--json"], &environment).unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<_> = findings.iter().filter(|f| f["mark"] == "fail").collect();
    assert_eq!((output.status.code(), failed.len()), (Some(69), 1), "{findings:?}");
    let (what, todo) = (failed[0]["what"].as_str().unwrap(), failed[0]["todo"].as_str().unwrap());
    assert!(failed[0]["check"] == "clock" && what.contains(" s from the registry's"), "{what}");
    assert!(todo.contains("169.254.169.123"), "{todo}");
}

fn publish(node: &Node, name: &str) -> Option<Process> {
    publish::start_ffmpeg(&Source::default(), &node.rtmp_url(name).unwrap()).unwrap()
}

/// True if the stream is published at this node and not relayed.
fn is_published_at(node: &Node, name: &str) -> bool {
    let found = status(node.http().unwrap(), name).unwrap();
    found.is_some_and(|stream| stream.video.is_some() && stream.protocol == "rtmp")
}

/// Publishes to the node; returns the publisher if the node accepts it.
fn try_publish(node: &Node, name: &str) -> Option<Process> {
    let publisher = publish(node, name)?;
    let response = wait::until("the node to accept or refuse the publisher", || {
        if is_published_at(node, name) { Some(true) } else { (!publisher.is_running()).then_some(false) }
    });
    response.unwrap().then_some(publisher)
}

/// Starts ffmpeg as a player that prints one line per frame.
fn play(node: &Node, name: &str) -> Process {
    let mut command = publish::ffmpeg_command().unwrap();
    let url = node.rtmp_url(name).unwrap();
    command.args(["-i", &url, "-c", "copy", "-f", "framecrc", "-flush_packets", "1", "-"]);
    Process::start(&mut command).unwrap()
}

fn wait_frames(player: &Process, more: usize, what: &str) {
    let target = player.line_count() + more;
    wait::until(what, || (player.line_count() >= target).then_some(())).unwrap();
    assert!(player.is_running());
}

/// Stops a node and shows the backtrace of a panic.
fn stop_node(node: Node) {
    node.daemon.process().signal(Signal::SIGTERM);
    assert_eq!(node.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    let lines = node.daemon.process().lines();
    let panic: Vec<_> =
        lines.into_iter().skip_while(|line| !line.contains("panicked at")).take(MAX_BACKTRACE_LINES).collect();
    assert!(panic.is_empty(), "{}", panic.join("\n"));
}

#[test]
fn clock_jump_fails_readyz_within_ten_seconds_and_takes_over_no_stream() {
    let Some(clock) = FakeClock::new().unwrap() else { return };
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    let well = Node::start(&aws, "i-0well", "origin").unwrap();
    let wrong = start_node(&aws, "i-0wrong", &clock);
    well.wait_ready().unwrap();
    let (at, health) = (well.http().unwrap(), wrong.health().unwrap());
    wait_failing_check(health, None, "");
    let Some(publisher) = publish(&well, "live/demo") else { return };
    well.wait_live("live/demo").unwrap();
    for (ahead_secs, sentence) in [(HOUR_SECS, "s ahead of the registry's"), (-HOUR_SECS, "s behind the registry's")] {
        clock.set_offset(ahead_secs).unwrap();
        wait_failing_check(health, Some("clock"), sentence);
        check_doctor_reports_clock(&wrong, &aws, &clock);
        assert!(try_publish(&wrong, "live/demo").is_none(), "{ahead_secs}: a stream of another node was taken over");
        // All leases are valid: both nodes see each other as alive.
        for at in [at, wrong.http().unwrap()] {
            let nodes: Vec<Value> = http::get(at, "/rest/v2/cluster/nodes/0/50").unwrap().json().unwrap();
            assert!(nodes.len() == 2 && nodes.iter().all(|n| n["status"] == "alive"), "{ahead_secs}: {nodes:?}");
        }
        clock.set_offset(0).unwrap();
        wait_failing_check(health, None, "");
    }
    assert!(publisher.is_running() && is_published_at(&well, "live/demo"));
    assert_eq!(http::get(well.health().unwrap(), "/readyz").unwrap().status, 200);
    stop_node(wrong);
}

#[test]
fn launching_hook_is_not_completed_until_the_clock_is_correct() {
    let Some(clock) = FakeClock::new().unwrap() else { return };
    clock.set_offset(HOUR_SECS).unwrap();
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    let groups = FakeAutoScaling::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let ahead = |options: &mut Options| options.environment.extend(clock_environment(&clock));
    let node = Node::start_in_group(&aws, &groups, "i-0ahead", "edge", ahead).unwrap();
    node.wait_ready().unwrap();
    wait_failing_check(node.health().unwrap(), Some("clock"), "s ahead of the registry's");
    check_doctor_reports_clock(&node, &aws, &clock);
    assert_eq!(groups.actions(), Vec::<String>::new(), "a node that is not ready used a hook");
    clock.set_offset(0).unwrap();
    groups
        .wait("i-0ahead", WAIT_TIMEOUT, "completion of the launching hook", |i| {
            (i.lifecycle == Lifecycle::InService).then_some(())
        })
        .unwrap();
    assert_eq!(http::get(node.health().unwrap(), "/readyz").unwrap().status, 200);
    stop_node(node);
}

#[test]
fn node_with_a_wrong_clock_and_a_slow_database_is_never_ready() {
    let Some(clock) = FakeClock::new().unwrap() else { return };
    clock.set_offset(HOUR_SECS).unwrap();
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let set = FakeReplicaSet::start(runtime.handle(), database.uri()).unwrap();
    let Some(aws) = cluster::start_aws(set.uri()).unwrap() else { return };
    let groups = FakeAutoScaling::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    // The engine serves long before the registry reports its time.
    set.delay_writes(Duration::from_millis(800));
    let ahead = |options: &mut Options| options.environment.extend(clock_environment(&clock));
    let node = Node::start_in_group(&aws, &groups, "i-0ahead", "edge", ahead).unwrap();
    let health = node.health().unwrap();
    wait::until("the clock check to fail", || {
        let response = http::get(health, "/readyz").ok()?;
        assert_eq!(response.status, 503, "{}", response.text());
        response.text().contains("s ahead of the registry's").then_some(())
    })
    .unwrap();
    assert_eq!(groups.actions(), Vec::<String>::new(), "a node that is not ready used a hook");
    stop_node(node);
}

#[test]
fn node_with_a_wrong_clock_keeps_its_streams_for_exactly_one_lease() {
    let (Some(ahead_clock), Some(behind_clock)) = (FakeClock::new().unwrap(), FakeClock::new().unwrap()) else {
        return;
    };
    ahead_clock.set_offset(HOUR_SECS).unwrap();
    behind_clock.set_offset(-HOUR_SECS).unwrap();
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    let (ahead, behind) = (start_node(&aws, "i-0ahead", &ahead_clock), start_node(&aws, "i-0behind", &behind_clock));
    let well = Node::start(&aws, "i-0well", "origin").unwrap();
    well.wait_ready().unwrap();
    wait_failing_check(ahead.health().unwrap(), Some("clock"), "s ahead of the registry's");
    wait_failing_check(behind.health().unwrap(), Some("clock"), "s behind the registry's");

    // A stream published to such a node keeps its name.
    let Some(first) = publish(&ahead, "live/ahead") else { return };
    let behind_publisher = publish(&behind, "live/behind").unwrap();
    ahead.wait_live("live/ahead").unwrap();
    behind.wait_live("live/behind").unwrap();
    for name in ["live/ahead", "live/behind"] {
        assert!(try_publish(&well, name).is_none(), "{name} was taken over from the node that holds it");
    }
    let player = play(&well, "live/ahead");
    wait_frames(&player, 50, "frames from the node that is ahead");

    // The node is stopped: its lease ends by the database's clock, not an hour later.
    ahead.daemon.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let _second = wait::until("the end of the lease", || try_publish(&well, "live/ahead")).unwrap();
    assert!(stopped.elapsed() < STREAM_LEASE + Duration::from_secs(8), "taken over after {:?}", stopped.elapsed());
    wait_frames(&player, 50, "frames in the same session, of a generation that began an hour earlier");
    ahead.daemon.signal(Signal::SIGCONT);
    wait::until("the node that was ahead to release the stream", || {
        (!is_published_at(&ahead, "live/ahead")).then_some(())
    })
    .unwrap();
    first.wait_exit(WAIT_TIMEOUT).unwrap();
    let lines = ahead.daemon.process().lines();
    assert!(
        lines.iter().any(|l| l.contains("closed") && l.contains("reason=another node owns the stream")),
        "{lines:#?}"
    );
    assert!(
        is_published_at(&well, "live/ahead")
            && behind_publisher.is_running()
            && is_published_at(&behind, "live/behind")
    );
    stop_node(ahead);
    stop_node(behind);
}

/// Generation of a live stream and number of its newest segment, from its HLS playlist.
fn newest_segment(node: &Node, name: &str) -> Option<(u64, u64)> {
    let (app, id) = name.split_once('/').unwrap();
    let response =
        http::get(node.http().unwrap(), &format!("/{app}/streams/{id}.m3u8")).ok().filter(|a| a.status == 200)?;
    let text = response.text();
    let first: u64 = text.split_once("#EXT-X-MEDIA-SEQUENCE:")?.1.lines().next()?.parse().unwrap();
    let segments: Vec<_> = text.lines().filter(|line| line.ends_with(".m4s") && !line.starts_with('#')).collect();
    let generation = segments.last()?.rsplit('/').nth(1)?.parse().unwrap();
    Some((generation, first + segments.len() as u64 - 1))
}

#[test]
fn hls_numbers_never_decrease_when_a_stream_leaves_an_origin_that_is_ahead() {
    let Some(clock) = FakeClock::new().unwrap() else { return };
    clock.set_offset(HOUR_SECS).unwrap();
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    let (ahead, well) = (start_node(&aws, "i-0ahead", &clock), Node::start(&aws, "i-0well", "origin").unwrap());
    well.wait_ready().unwrap();
    wait_failing_check(ahead.health().unwrap(), Some("clock"), "s ahead of the registry's");
    wait_failing_check(well.health().unwrap(), None, "");
    let nodes = [&ahead, &well];
    let seen = |what: &str, later_than: u64| {
        nodes.map(|node| {
            let later = || newest_segment(node, "live/demo").filter(|(generation, _)| *generation > later_than);
            wait::until(what, later).unwrap()
        })
    };

    let Some(first) = publish(&ahead, "live/demo") else { return };
    ahead.wait_live("live/demo").unwrap();
    let before = seen("a playlist of the first generation", 0);
    assert_eq!(before[0].0, before[1].0, "two nodes report different generations");
    drop(first);
    wait::until("the node that is ahead to release the stream", || {
        (!is_published_at(&ahead, "live/demo")).then_some(())
    })
    .unwrap();
    let last = nodes.map(|node| newest_segment(node, "live/demo").map_or(0, |(_, number)| number));
    let _second = wait::until("the other node to accept the stream", || try_publish(&well, "live/demo")).unwrap();
    let after = seen("a playlist of the second generation", before[0].0);
    assert_eq!(after[0].0, after[1].0, "two nodes report different generations");
    for number in [before[0].1, before[1].1].into_iter().chain(last) {
        assert!(after.iter().all(|(_, newest)| *newest > number), "{number} came before {after:?}");
    }
    stop_node(ahead);
}

/// Starts an AWS endpoint that rejects signatures because the clock is an hour slow. Runs until the
/// test process ends.
fn start_aws_rejecting_clock() -> Vec<(&'static str, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let message =
        "Signature expired: 20260101T110000Z is now earlier than 20260101T115500Z (20260101T120000Z - 5 min.)";
    let body = serde_json::json!({ "__type": "InvalidSignatureException", "message": message }).to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut request = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            while request.read_line(&mut line).is_ok_and(|n| n > 2) {
                let value = line.to_ascii_lowercase().strip_prefix("content-length: ").map(|v| v.trim().parse());
                length = value.map_or(length, Result::unwrap);
                line.clear();
            }
            let _ = request.read_exact(&mut vec![0; length]);
            let head =
                "HTTP/1.1 400 x\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close\r\ncontent-length:";
            let _ = write!(request.into_inner(), "{head} {}\r\n\r\n{body}", body.len());
        }
    });
    vec![
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
    ]
}

#[test]
fn clock_rejected_by_aws_is_reported_in_the_log_and_by_doctor() {
    let environment = start_aws_rejecting_clock();
    let tags = [("headwater:role", "edge"), ("headwater:cluster", "demo"), ("headwater:registry", "127.0.0.1:1")];
    let metadata = FakeMetadata::start(&tags).unwrap();
    let mut options = Options::with(|c| c.metadata.endpoint = metadata.address());
    options.environment.clone_from(&environment);
    let node = Daemon::start(options).unwrap();
    let line = node.process().wait_line("out of service").unwrap();
    assert!(line.contains("Signature expired: 20260101T110000Z is now earlier than"), "{line}");
    let output = node.run_command(&["doctor", "--json"], &environment).unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let found = |check: &str| findings.iter().find(|f| f["check"] == check).unwrap();
    assert_eq!((output.status.code(), found("clock")["mark"].as_str()), (Some(69), Some("fail")), "{findings:?}");
    assert_eq!(found("registry")["todo"], "correct this machine's clock");
}
