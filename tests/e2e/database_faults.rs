//! Database faults, at boot and while a node serves: the node reports each fault in its log and in
//! `/readyz`, publishers and viewers are not interrupted, and the node recovers without help.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headwater_api::StreamName;
use headwater_api::documents::StreamRecord;
use headwater_api::secret::Secret;
use headwater_registry::{MongoDb, Streams as _, Timing};
use headwater_tests::cluster::{self, Node};
use headwater_tests::http;
use headwater_tests::mongo::Database;
use headwater_tests::moto::Moto;
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::replica_set::{self, FakeReplicaSet, OUT_OF_DISK_SPACE};
use headwater_tests::temp::TempDir;
use headwater_tests::wait::{self, WAIT_TIMEOUT};
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;

use crate::readiness::wait_failing_check;
use crate::tls_proxy::{CertificateAuthority, TlsProxy};

/// Lease of a node and of a stream.
const LEASE_DURATION: Duration = Duration::from_secs(15);

/// A node with a stream that ffmpeg publishes and plays over RTMP and HLS.
struct LiveNode {
    node: Node,
    health: SocketAddr,
    publisher: Process,
    players: [Process; 2],
}

impl LiveNode {
    fn start(aws: &Moto, id: &str) -> Option<Self> {
        cluster::add_administrator_secret(aws).unwrap();
        let node = Node::start(aws, id, "origin").unwrap();
        node.wait_ready().unwrap();
        // The last line of the boot, which is logged at any time.
        node.daemon.process().wait_line("administrator's password taken").unwrap();
        let health = node.health().unwrap();
        wait_failing_check(health, None, "");
        let publisher = publish(&node, "live/demo")?;
        node.wait_live("live/demo").unwrap();
        let hls = format!("http://{}/live/streams/demo.m3u8", node.http().unwrap());
        let players = [start_player(&node.rtmp_url("live/demo").unwrap()), start_player(&hls)];
        let live_node = Self { node, health, publisher, players };
        live_node.check_playback_continues("at the start");
        Some(live_node)
    }

    /// Checks that every player receives two more seconds of the stream.
    fn check_playback_continues(&self, what: &str) {
        assert!(self.publisher.is_running(), "{what}: no publisher");
        for player in &self.players {
            let target = frame_times(player).len() + 50;
            wait::until(what, || (frame_times(player).len() >= target).then_some(())).unwrap();
            assert!(player.is_running(), "{what}: no player");
        }
    }

    /// Warnings, errors and panics logged since line `start`.
    fn warnings(&self, start: usize) -> Vec<String> {
        let lines = self.node.daemon.process().lines_from(start);
        lines.into_iter().filter(|l| ["WARN", "ERROR", "panicked"].iter().any(|word| l.contains(word))).collect()
    }

    fn line_count(&self) -> usize {
        self.node.daemon.process().line_count()
    }

    fn wait_line(&self, start: usize, needle: &str) -> String {
        self.node.daemon.process().wait_line_from(start, needle).unwrap()
    }

    /// Stops the node and checks that no player missed a frame.
    fn stop(self) {
        for player in &self.players {
            let times = frame_times(player);
            let gap = times.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
            assert!(gap < 0.5, "{gap} s of video are missing");
        }
        self.node.daemon.process().signal(Signal::SIGTERM);
        assert_eq!(self.node.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    }
}

fn publish(node: &Node, name: &str) -> Option<Process> {
    publish::start_ffmpeg(&Source::default(), &node.rtmp_url(name).unwrap()).unwrap()
}

/// Starts ffmpeg as a player that prints one line per video frame.
fn start_player(url: &str) -> Process {
    let mut command = publish::ffmpeg_command().unwrap();
    command.args(["-i", url, "-map", "0:v", "-c", "copy", "-f", "framecrc", "-flush_packets", "1", "-"]);
    Process::start(&mut command).unwrap()
}

/// Decoding time of each received frame, in seconds.
fn frame_times(player: &Process) -> Vec<f64> {
    let lines = player.lines();
    let base = lines.iter().find_map(|line| line.strip_prefix("#tb 0: ")?.split_once('/'));
    let Some((numerator, denominator)) = base else { return Vec::new() };
    let tick = numerator.trim().parse::<f64>().unwrap() / denominator.trim().parse::<f64>().unwrap();
    let times = lines.iter().filter_map(|line| line.strip_prefix("0,")?.split(',').next()?.trim().parse::<f64>().ok());
    times.map(|ticks| ticks * tick).collect()
}

/// Reads the record of a stream from the database.
fn stream_record(runtime: &Runtime, database: &Database, id: &str) -> Option<StreamRecord> {
    runtime.block_on(async {
        let registry = MongoDb::open(&Secret::new(database.uri()), Timing::default()).await.unwrap();
        registry.stream(&StreamName::new("live", id).unwrap()).await.unwrap()
    })
}

/// Waits until `time` has passed.
fn wait_elapsed(time: Duration, what: &str) {
    let started = Instant::now();
    wait::until(what, || (started.elapsed() > time).then_some(())).unwrap();
}

#[test]
fn election_lost_majority_or_full_disk_interrupts_no_stream() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let set = FakeReplicaSet::start(runtime.handle(), database.uri()).unwrap();
    let Some(aws) = cluster::start_aws(set.uri()).unwrap() else { return };
    let Some(live_node) = LiveNode::start(&aws, "i-0node") else { return };

    // An immediate election: the node logs nothing and writes to the new primary.
    let start = live_node.line_count();
    set.elect(Some(1));
    wait::until("leases to be renewed at the new primary", || {
        assert_eq!(http::get(live_node.health, "/readyz").unwrap().status, 200);
        (set.writes(1) >= 6).then_some(())
    })
    .unwrap();
    assert_eq!(live_node.warnings(start), Vec::<String>::new());

    type Act<'a> = &'a dyn Fn();
    let lost_majority: (&str, &str, Act<'_>, Act<'_>) =
        ("lost", "none of its servers is the primary", &|| set.elect(None), &|| set.elect(Some(2)));
    let full_disk: (&str, &str, Act<'_>, Act<'_>) =
        ("full", "Error code 14031 (OutOfDiskSpace)", &|| set.fail_writes(Some(OUT_OF_DISK_SPACE)), &|| {
            set.fail_writes(None)
        });
    for (id, cause, inject, repair) in [lost_majority, full_disk] {
        let (start, name) = (live_node.line_count(), format!("live/{id}"));
        inject();
        wait_failing_check(
            live_node.health,
            Some("lease"),
            "the registry receives no heartbeat from this node: could not renew the lease",
        );
        wait_failing_check(live_node.health, Some("lease"), cause);
        live_node.wait_line(start, "registry is unreachable, the node keeps serving");
        live_node.wait_line(start, "registry is unreachable, streams continue");
        live_node.check_playback_continues("while the database does not write");
        let Some(late) = publish(&live_node.node, &name) else { return };
        live_node.node.wait_live(&name).unwrap();
        // Both processes of the node retry.
        wait_elapsed(LEASE_DURATION, "one lease");
        live_node.check_playback_continues("after one lease");
        let warnings = live_node.warnings(start);
        assert!(warnings.iter().any(|l| l.contains("the node keeps serving") && l.contains(cause)), "{warnings:#?}");
        assert!(warnings.len() <= 5, "a flood: {warnings:#?}");

        let start = live_node.line_count();
        repair();
        wait_failing_check(live_node.health, None, "");
        live_node.wait_line(start, "registry is reachable again");
        let record = wait::until("the stream to be claimed", || stream_record(&runtime, &database, id)).unwrap();
        assert_eq!(record.claim.owner.node, "i-0node");
        assert!(stream_record(&runtime, &database, "demo").is_some(), "{cause}: the earlier stream has no owner");
        assert!(late.is_running());
        live_node.check_playback_continues("after the fault");
        assert_eq!(live_node.warnings(start), Vec::<String>::new());
    }
    assert!(set.writes(2) > 0);
    live_node.stop();
}

#[test]
fn node_waits_at_boot_while_the_database_has_no_primary_or_a_full_disk() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let set = FakeReplicaSet::start(runtime.handle(), database.uri()).unwrap();
    let Some(aws) = cluster::start_aws(set.uri()).unwrap() else { return };
    let check = |id: &str, cause: &str, repair: &dyn Fn()| {
        let node = Node::start(&aws, id, "edge").unwrap();
        let line = node.daemon.process().wait_line("out of service").unwrap();
        assert!(line.contains(cause), "{line}");
        wait_elapsed(LEASE_DURATION / 2, "more attempts");
        let reports = node.daemon.process().lines().iter().filter(|l| l.contains("out of service")).count();
        assert_eq!(reports, 1);
        repair();
        node.wait_ready().unwrap();
        wait_failing_check(node.health().unwrap(), None, "");
    };
    set.fail_writes(Some(OUT_OF_DISK_SPACE));
    check("i-0full", "Error code 14031 (OutOfDiskSpace)", &|| set.fail_writes(None));
    set.elect(None);
    check("i-0lost", "none of its servers is the primary", &|| set.elect(Some(1)));
}

#[test]
fn untrusted_database_certificate_is_reported_at_boot_and_while_serving() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let (authority, other_authority) = (CertificateAuthority::new("ours"), CertificateAuthority::new("theirs"));
    let folder = TempDir::new().unwrap();
    let trusted = folder.write("ca.pem", authority.pem()).unwrap();
    let (login, server) = replica_set::split_uri(database.uri()).unwrap();
    let wrong = [
        (other_authority.certify("localhost"), "UnknownIssuer"),
        (authority.certify("registry.example"), "not valid for name"),
    ];
    let proxy = TlsProxy::start(runtime.handle(), server, wrong[0].0.clone());
    let uri = format!("{login}localhost:{}/?directConnection=true", proxy.port());
    let Some(aws) = cluster::start_aws(&format!("mongodb://{uri}&tls=true&tlsCAFile={}", trusted.display())).unwrap()
    else {
        return;
    };

    for (at, (certificate, cause)) in wrong.iter().enumerate() {
        proxy.set_certificate(certificate.clone());
        let node = Node::start(&aws, &format!("i-0boot{at}"), "edge").unwrap();
        let out = node.daemon.process().wait_line("out of service").unwrap();
        assert!(out.contains("refused: ") && out.contains("certificate") && out.contains(cause), "{out}");
        // Retried every five seconds, and logged once.
        let before = proxy.rejected_handshakes();
        wait::until("more attempts", || (proxy.rejected_handshakes() >= before + 12).then_some(())).unwrap();
        assert_eq!(node.daemon.process().lines().iter().filter(|l| l.contains("out of service")).count(), 1);
        proxy.set_certificate(authority.certify("localhost"));
        node.wait_ready().unwrap();
    }

    let Some(live_node) = LiveNode::start(&aws, "i-0node") else { return };
    for (certificate, cause) in wrong {
        let start = live_node.line_count();
        proxy.set_certificate(certificate);
        wait_failing_check(live_node.health, Some("lease"), "the registry receives no heartbeat from this node");
        // The first error is that of the broken connection.
        wait_failing_check(live_node.health, Some("lease"), cause);
        live_node.check_playback_continues("while the certificate is wrong");
        wait::until("a line that names the cause", || {
            live_node
                .warnings(start)
                .iter()
                .any(|l| l.contains("the node keeps serving") && l.contains(cause))
                .then_some(())
        })
        .unwrap();
        let before = proxy.rejected_handshakes();
        wait::until("more attempts", || (proxy.rejected_handshakes() >= before + 12).then_some(())).unwrap();
        let warnings = live_node.warnings(start);
        assert!(warnings.len() <= 4, "a flood: {warnings:#?}");
        let start = live_node.line_count();
        proxy.set_certificate(authority.certify("localhost"));
        wait_failing_check(live_node.health, None, "");
        live_node.wait_line(start, "registry is reachable again");
        live_node.check_playback_continues("after the certificate is correct again");
    }
    assert!(stream_record(&runtime, &database, "demo").is_some());
    live_node.stop();
}

#[test]
fn engine_that_crashes_during_an_outage_restarts_and_accepts_its_publisher() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    let node = Node::start(&aws, "i-0node", "origin").unwrap();
    node.wait_ready().unwrap();
    database.kill().unwrap();
    wait_failing_check(node.health().unwrap(), Some("lease"), "");
    let first = node.daemon.wait_endpoints(None).unwrap();
    let start = node.daemon.process().line_count();
    let pid = nix::unistd::Pid::from_raw(first.pid.try_into().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    node.daemon.process().wait_line_from(start, "engine exited unexpectedly, restarting it").unwrap();
    let again = node.daemon.wait_endpoints(Some(first.pid)).unwrap();
    let Some(_publisher) = publish(&node, "live/demo") else { return };
    node.wait_live("live/demo").unwrap();
    database.restart().unwrap();
    wait_failing_check(again.health, None, "");
    node.daemon.process().wait_line_from(start, "apps read from the registry").unwrap();
}
