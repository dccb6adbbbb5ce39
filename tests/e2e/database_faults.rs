//! Database faults, at boot and while a node serves: the node reports each fault in its log and in
//! `/readyz`, publishers and viewers are not interrupted, and the node recovers without help.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headwater_api::StreamName;
use headwater_api::secret::Secret;
use headwater_api::stream::StreamRecord;
use headwater_registry::{MongoDb, Registry as _, Timing};
use headwater_tests::cluster::{self, Node};
use headwater_tests::http;
use headwater_tests::mongo::Database;
use headwater_tests::moto::Moto;
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::replica_set::{self, OUT_OF_DISK_SPACE, ReplicaSet};
use headwater_tests::temp::Folder;
use headwater_tests::wait::{self, PATIENCE};
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;

use crate::readiness::wait_wrong;
use crate::tls_line::{Authority, TlsLine};

/// Lease of a node and of a stream.
const LEASE: Duration = Duration::from_secs(15);

/// A node with a stream that ffmpeg publishes and plays over RTMP and HLS.
struct Scene {
    node: Node,
    health: SocketAddr,
    publisher: Process,
    players: [Process; 2],
}

impl Scene {
    fn start(aws: &Moto, id: &str) -> Option<Self> {
        cluster::add_administrator(aws).unwrap();
        let node = Node::start(aws, id, "origin").unwrap();
        node.wait_ready().unwrap();
        // The last line of the boot, which is logged at any time.
        node.daemon.process().line("administrator's password taken").unwrap();
        let health = node.health().unwrap();
        wait_wrong(health, None, "");
        let publisher = publish(&node, "live/demo")?;
        node.wait_live("live/demo").unwrap();
        let hls = format!("http://{}/live/streams/demo.m3u8", node.http().unwrap());
        let players = [play(&node.rtmp_url("live/demo").unwrap()), play(&hls)];
        let scene = Self { node, health, publisher, players };
        scene.goes_on("at the start");
        Some(scene)
    }

    /// Checks that every player receives two more seconds of the stream.
    fn goes_on(&self, what: &str) {
        assert!(self.publisher.is_running(), "{what}: no publisher");
        for player in &self.players {
            let target = pictures(player).len() + 50;
            wait::until(what, || (pictures(player).len() >= target).then_some(())).unwrap();
            assert!(player.is_running(), "{what}: no player");
        }
    }

    /// Warnings, errors and panics logged since line `start`.
    fn complaints(&self, start: usize) -> Vec<String> {
        let lines = self.node.daemon.process().lines_from(start);
        lines.into_iter().filter(|l| ["WARN", "ERROR", "panicked"].iter().any(|word| l.contains(word))).collect()
    }

    fn mark(&self) -> usize {
        self.node.daemon.process().line_count()
    }

    fn line(&self, start: usize, needle: &str) -> String {
        self.node.daemon.process().nth_line(start, needle).unwrap()
    }

    /// Stops the node and checks that no player missed a frame.
    fn end(self) {
        for player in &self.players {
            let pictures = pictures(player);
            let gap = pictures.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
            assert!(gap < 0.5, "{gap} s of video are missing");
        }
        self.node.daemon.process().signal(Signal::SIGTERM);
        assert_eq!(self.node.daemon.process().exit(PATIENCE).unwrap().code(), Some(0));
    }
}

fn publish(node: &Node, name: &str) -> Option<Process> {
    publish::ffmpeg(&Source::default(), &node.rtmp_url(name).unwrap()).unwrap()
}

/// Starts ffmpeg as a player that prints one line per video frame.
fn play(url: &str) -> Process {
    let mut command = publish::ffmpeg_command().unwrap();
    command.args(["-i", url, "-map", "0:v", "-c", "copy", "-f", "framecrc", "-flush_packets", "1", "-"]);
    Process::start(&mut command).unwrap()
}

/// Decoding time of each received frame, in seconds.
fn pictures(player: &Process) -> Vec<f64> {
    let lines = player.lines();
    let base = lines.iter().find_map(|line| line.strip_prefix("#tb 0: ")?.split_once('/'));
    let Some((numerator, denominator)) = base else { return Vec::new() };
    let tick = numerator.trim().parse::<f64>().unwrap() / denominator.trim().parse::<f64>().unwrap();
    let times = lines.iter().filter_map(|line| line.strip_prefix("0,")?.split(',').next()?.trim().parse::<f64>().ok());
    times.map(|ticks| ticks * tick).collect()
}

/// Reads the record of a stream from the database.
fn claimed(runtime: &Runtime, database: &Database, id: &str) -> Option<StreamRecord> {
    runtime.block_on(async {
        let registry = MongoDb::open(&Secret::new(database.uri()), Timing::default()).await.unwrap();
        registry.stream(&StreamName::new("live", id).unwrap()).await.unwrap()
    })
}

/// Waits until `time` has passed.
fn wait_for(time: Duration, what: &str) {
    let begun = Instant::now();
    wait::until(what, || (begun.elapsed() > time).then_some(())).unwrap();
}

#[test]
fn election_lost_majority_or_full_disk_interrupts_no_stream() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let set = ReplicaSet::start(runtime.handle(), database.uri()).unwrap();
    let Some(aws) = cluster::aws(set.uri()).unwrap() else { return };
    let Some(scene) = Scene::start(&aws, "i-0node") else { return };

    // An immediate election: the node logs nothing and writes to the new primary.
    let start = scene.mark();
    set.elect(Some(1));
    wait::until("leases to be renewed at the new primary", || {
        assert_eq!(http::get(scene.health, "/readyz").unwrap().status, 200);
        (set.writes(1) >= 6).then_some(())
    })
    .unwrap();
    assert_eq!(scene.complaints(start), Vec::<String>::new());

    type Act<'a> = &'a dyn Fn();
    let lost: (&str, &str, Act<'_>, Act<'_>) =
        ("lost", "none of its servers is the primary", &|| set.elect(None), &|| set.elect(Some(2)));
    let full: (&str, &str, Act<'_>, Act<'_>) =
        ("full", "Error code 14031 (OutOfDiskSpace)", &|| set.refuse_writes(Some(OUT_OF_DISK_SPACE)), &|| {
            set.refuse_writes(None)
        });
    for (id, cause, inject, repair) in [lost, full] {
        let (start, name) = (scene.mark(), format!("live/{id}"));
        inject();
        wait_wrong(scene.health, Some("lease"), "the registry does not hear from this node: could not renew the lease");
        wait_wrong(scene.health, Some("lease"), cause);
        scene.line(start, "registry is away, the node serves on");
        scene.line(start, "registry is unreachable, streams continue");
        scene.goes_on("while the database does not write");
        let Some(late) = publish(&scene.node, &name) else { return };
        scene.node.wait_live(&name).unwrap();
        // Both processes of the node retry.
        wait_for(LEASE, "one lease");
        scene.goes_on("after one lease");
        let complaints = scene.complaints(start);
        assert!(complaints.iter().any(|l| l.contains("the node serves on") && l.contains(cause)), "{complaints:#?}");
        assert!(complaints.len() <= 5, "a flood: {complaints:#?}");

        let start = scene.mark();
        repair();
        wait_wrong(scene.health, None, "");
        scene.line(start, "registry is back");
        let record = wait::until("the stream to be claimed", || claimed(&runtime, &database, id)).unwrap();
        assert_eq!(record.claim.owner.node, "i-0node");
        assert!(claimed(&runtime, &database, "demo").is_some(), "{cause}: the earlier stream has no owner");
        assert!(late.is_running());
        scene.goes_on("after the fault");
        assert_eq!(scene.complaints(start), Vec::<String>::new());
    }
    assert!(set.writes(2) > 0);
    scene.end();
}

#[test]
fn node_waits_at_boot_while_the_database_has_no_primary_or_a_full_disk() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let set = ReplicaSet::start(runtime.handle(), database.uri()).unwrap();
    let Some(aws) = cluster::aws(set.uri()).unwrap() else { return };
    let check = |id: &str, cause: &str, repair: &dyn Fn()| {
        let node = Node::start(&aws, id, "edge").unwrap();
        let line = node.daemon.process().line("out of service").unwrap();
        assert!(line.contains(cause), "{line}");
        wait_for(LEASE / 2, "more attempts");
        let reports = node.daemon.process().lines().iter().filter(|l| l.contains("out of service")).count();
        assert_eq!(reports, 1);
        repair();
        node.wait_ready().unwrap();
        wait_wrong(node.health().unwrap(), None, "");
    };
    set.refuse_writes(Some(OUT_OF_DISK_SPACE));
    check("i-0full", "Error code 14031 (OutOfDiskSpace)", &|| set.refuse_writes(None));
    set.elect(None);
    check("i-0lost", "none of its servers is the primary", &|| set.elect(Some(1)));
}

#[test]
fn untrusted_database_certificate_is_reported_at_boot_and_while_serving() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let (authority, other_authority) = (Authority::new("ours"), Authority::new("theirs"));
    let folder = Folder::new().unwrap();
    let trusted = folder.write("ca.pem", authority.pem()).unwrap();
    let (login, server) = replica_set::split(database.uri()).unwrap();
    let wrong =
        [(other_authority.certify("localhost"), "UnknownIssuer"), (authority.certify("registry.example"), "not valid for name")];
    let line = TlsLine::start(runtime.handle(), server, wrong[0].0.clone());
    let uri = format!("{login}localhost:{}/?directConnection=true", line.port());
    let Some(aws) = cluster::aws(&format!("mongodb://{uri}&tls=true&tlsCAFile={}", trusted.display())).unwrap()
    else {
        return;
    };

    for (at, (certificate, cause)) in wrong.iter().enumerate() {
        line.show(certificate.clone());
        let node = Node::start(&aws, &format!("i-0boot{at}"), "edge").unwrap();
        let out = node.daemon.process().line("out of service").unwrap();
        assert!(out.contains("refuses: ") && out.contains("certificate") && out.contains(cause), "{out}");
        // Retried every five seconds, and logged once.
        let before = line.refused();
        wait::until("more attempts", || (line.refused() >= before + 12).then_some(())).unwrap();
        assert_eq!(node.daemon.process().lines().iter().filter(|l| l.contains("out of service")).count(), 1);
        line.show(authority.certify("localhost"));
        node.wait_ready().unwrap();
    }

    let Some(scene) = Scene::start(&aws, "i-0node") else { return };
    for (certificate, cause) in wrong {
        let start = scene.mark();
        line.show(certificate);
        wait_wrong(scene.health, Some("lease"), "the registry does not hear from this node");
        // The first error is that of the broken connection.
        wait_wrong(scene.health, Some("lease"), cause);
        scene.goes_on("while the certificate is wrong");
        wait::until("a line that names the cause", || {
            scene.complaints(start).iter().any(|l| l.contains("the node serves on") && l.contains(cause)).then_some(())
        })
        .unwrap();
        let before = line.refused();
        wait::until("more attempts", || (line.refused() >= before + 12).then_some(())).unwrap();
        let complaints = scene.complaints(start);
        assert!(complaints.len() <= 4, "a flood: {complaints:#?}");
        let start = scene.mark();
        line.show(authority.certify("localhost"));
        wait_wrong(scene.health, None, "");
        scene.line(start, "registry is back");
        scene.goes_on("after the certificate is correct again");
    }
    assert!(claimed(&runtime, &database, "demo").is_some());
    scene.end();
}

#[test]
fn engine_that_crashes_during_an_outage_restarts_and_accepts_its_publisher() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::aws(database.uri()).unwrap() else { return };
    let node = Node::start(&aws, "i-0node", "origin").unwrap();
    node.wait_ready().unwrap();
    database.kill().unwrap();
    wait_wrong(node.health().unwrap(), Some("lease"), "");
    let first = node.daemon.endpoints(None).unwrap();
    let start = node.daemon.process().line_count();
    let pid = nix::unistd::Pid::from_raw(first.pid.try_into().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    node.daemon.process().nth_line(start, "engine ended by itself, starting it again").unwrap();
    let again = node.daemon.endpoints(Some(first.pid)).unwrap();
    let Some(_publisher) = publish(&node, "live/demo") else { return };
    node.wait_live("live/demo").unwrap();
    database.restart().unwrap();
    wait_wrong(again.health, None, "");
    node.daemon.process().nth_line(start, "apps read from the registry").unwrap();
}
