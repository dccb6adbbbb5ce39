//! Faults of the database of a whole node: which sentence says so, what `/readyz` says, that nobody who publishes or watches notices,
//! and that the node writes again by itself. At boot, and while it serves.

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

/// Of a node and of a stream.
const LEASE: Duration = Duration::from_secs(15);

/// A node that carries a stream of ffmpeg's to ffmpeg, over RTMP and over HLS.
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
        // All that a boot has to say is said, whenever it comes.
        node.daemon.process().line("administrator's password taken").unwrap();
        let health = node.health().unwrap();
        wait_wrong(health, None, "");
        let publisher = publish(&node, "live/demo")?;
        node.wait_live("live/demo").unwrap();
        let hls = format!("http://{}/live/streams/demo.m3u8", node.http().unwrap());
        let players = [play(&node.rtmp_url("live/demo").unwrap()), play(&hls)];
        let scene = Self { node, health, publisher, players };
        scene.goes_on("pictures");
        Some(scene)
    }

    /// Everybody sees two more seconds of the stream.
    fn goes_on(&self, what: &str) {
        assert!(self.publisher.is_running(), "{what}: no publisher");
        for player in &self.players {
            let target = pictures(player).len() + 50;
            wait::until(what, || (pictures(player).len() >= target).then_some(())).unwrap();
            assert!(player.is_running(), "{what}: no player");
        }
    }

    /// What the node has said since line `start` that is more than news.
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

    /// Ends in order, and nobody has missed anything.
    fn end(self) {
        for player in &self.players {
            let pictures = pictures(player);
            let gap = pictures.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
            assert!(gap < 0.5, "{gap} s of pictures are missing");
        }
        self.node.daemon.process().signal(Signal::SIGTERM);
        assert_eq!(self.node.daemon.process().exit(PATIENCE).unwrap().code(), Some(0));
    }
}

fn publish(node: &Node, name: &str) -> Option<Process> {
    publish::ffmpeg(&Source::default(), &node.rtmp_url(name).unwrap()).unwrap()
}

/// ffmpeg as a player: a line on standard output for every picture.
fn play(url: &str) -> Process {
    let mut command = publish::ffmpeg_command().unwrap();
    command.args(["-i", url, "-map", "0:v", "-c", "copy", "-f", "framecrc", "-flush_packets", "1", "-"]);
    Process::start(&mut command).unwrap()
}

/// When each picture is to be decoded, in seconds.
fn pictures(player: &Process) -> Vec<f64> {
    let lines = player.lines();
    let base = lines.iter().find_map(|line| line.strip_prefix("#tb 0: ")?.split_once('/'));
    let Some((numerator, denominator)) = base else { return Vec::new() };
    let tick = numerator.trim().parse::<f64>().unwrap() / denominator.trim().parse::<f64>().unwrap();
    let times = lines.iter().filter_map(|line| line.strip_prefix("0,")?.split(',').next()?.trim().parse::<f64>().ok());
    times.map(|ticks| ticks * tick).collect()
}

/// What the database itself knows of a stream.
fn claimed(runtime: &Runtime, database: &Database, id: &str) -> Option<StreamRecord> {
    runtime.block_on(async {
        let registry = MongoDb::open(&Secret::new(database.uri()), Timing::default()).await.unwrap();
        registry.stream(&StreamName::new("live", id).unwrap()).await.unwrap()
    })
}

/// Lets a fault last.
fn wait_for(time: Duration, what: &str) {
    let begun = Instant::now();
    wait::until(what, || (begun.elapsed() > time).then_some(())).unwrap();
}

#[test]
fn a_primary_that_changes_is_followed_and_a_lost_majority_or_a_full_disk_costs_nobody_a_picture() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let set = ReplicaSet::start(runtime.handle(), database.uri()).unwrap();
    let Some(aws) = cluster::aws(set.uri()).unwrap() else { return };
    let Some(scene) = Scene::start(&aws, "i-0node") else { return };

    // Another primary is elected at once: the node has nothing to say, and writes there.
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
    for (id, cause, breaks, mends) in [lost, full] {
        let (start, name) = (scene.mark(), format!("live/{id}"));
        breaks();
        wait_wrong(scene.health, Some("lease"), "the registry does not hear from this node: could not renew the lease");
        wait_wrong(scene.health, Some("lease"), cause);
        scene.line(start, "registry is away, the node serves on");
        scene.line(start, "registry is away, streams go on");
        scene.goes_on("pictures while the database does not write");
        let Some(late) = publish(&scene.node, &name) else { return };
        scene.node.wait_live(&name).unwrap();
        // Both processes of the node ask again and again.
        wait_for(LEASE, "the time of a lease");
        scene.goes_on("pictures after that");
        let complaints = scene.complaints(start);
        assert!(complaints.iter().any(|l| l.contains("the node serves on") && l.contains(cause)), "{complaints:#?}");
        assert!(complaints.len() <= 5, "a flood: {complaints:#?}");

        let start = scene.mark();
        mends();
        wait_wrong(scene.health, None, "");
        scene.line(start, "registry is back");
        let record = wait::until("the stream to be claimed", || claimed(&runtime, &database, id)).unwrap();
        assert_eq!(record.claim.owner.node, "i-0node");
        assert!(claimed(&runtime, &database, "demo").is_some(), "{cause}: the stream of before is nobody's");
        assert!(late.is_running());
        scene.goes_on("pictures after the fault");
        assert_eq!(scene.complaints(start), Vec::<String>::new());
    }
    assert!(set.writes(2) > 0);
    scene.end();
}

#[test]
fn a_node_that_boots_without_a_primary_or_with_a_full_disk_says_so_and_comes_up_when_it_is_over() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let set = ReplicaSet::start(runtime.handle(), database.uri()).unwrap();
    let Some(aws) = cluster::aws(set.uri()).unwrap() else { return };
    let check = |id: &str, cause: &str, mends: &dyn Fn()| {
        let node = Node::start(&aws, id, "edge").unwrap();
        let line = node.daemon.process().line("out of service").unwrap();
        assert!(line.contains(cause), "{line}");
        wait_for(LEASE / 2, "more attempts");
        let said = node.daemon.process().lines().iter().filter(|l| l.contains("out of service")).count();
        assert_eq!(said, 1);
        mends();
        node.wait_ready().unwrap();
        wait_wrong(node.health().unwrap(), None, "");
    };
    set.refuse_writes(Some(OUT_OF_DISK_SPACE));
    check("i-0full", "Error code 14031 (OutOfDiskSpace)", &|| set.refuse_writes(None));
    set.elect(None);
    check("i-0lost", "none of its servers is the primary", &|| set.elect(Some(1)));
}

#[test]
fn a_certificate_that_is_not_trusted_is_named_at_boot_and_while_a_node_serves() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let folder = Folder::new().unwrap();
    let trusted = folder.write("ca.pem", ours.pem()).unwrap();
    let (login, server) = replica_set::split(database.uri()).unwrap();
    let wrong =
        [(theirs.certify("localhost"), "UnknownIssuer"), (ours.certify("registry.example"), "not valid for name")];
    let line = TlsLine::start(runtime.handle(), server, wrong[0].0.clone());
    let place = format!("{login}localhost:{}/?directConnection=true", line.port());
    let Some(aws) = cluster::aws(&format!("mongodb://{place}&tls=true&tlsCAFile={}", trusted.display())).unwrap()
    else {
        return;
    };

    for (at, (certificate, cause)) in wrong.iter().enumerate() {
        line.show(certificate.clone());
        let node = Node::start(&aws, &format!("i-0boot{at}"), "edge").unwrap();
        let out = node.daemon.process().line("out of service").unwrap();
        assert!(out.contains("refuses: ") && out.contains("certificate") && out.contains(cause), "{out}");
        // Asked for anew every five seconds, and said once.
        let before = line.refused();
        wait::until("more attempts", || (line.refused() >= before + 12).then_some(())).unwrap();
        assert_eq!(node.daemon.process().lines().iter().filter(|l| l.contains("out of service")).count(), 1);
        line.show(ours.certify("localhost"));
        node.wait_ready().unwrap();
    }

    let Some(scene) = Scene::start(&aws, "i-0node") else { return };
    for (certificate, cause) in wrong {
        let start = scene.mark();
        line.show(certificate);
        wait_wrong(scene.health, Some("lease"), "the registry does not hear from this node");
        // At first it is a connection that broke.
        wait_wrong(scene.health, Some("lease"), cause);
        scene.goes_on("pictures while the certificate is wrong");
        wait::until("a line that names it", || {
            scene.complaints(start).iter().any(|l| l.contains("the node serves on") && l.contains(cause)).then_some(())
        })
        .unwrap();
        let before = line.refused();
        wait::until("more attempts", || (line.refused() >= before + 12).then_some(())).unwrap();
        let complaints = scene.complaints(start);
        assert!(complaints.len() <= 4, "a flood: {complaints:#?}");
        let start = scene.mark();
        line.show(ours.certify("localhost"));
        wait_wrong(scene.health, None, "");
        scene.line(start, "registry is back");
        scene.goes_on("pictures afterwards");
    }
    assert!(claimed(&runtime, &database, "demo").is_some());
    scene.end();
}

#[test]
fn an_engine_that_crashes_while_the_database_is_away_is_started_again_and_takes_its_publisher_back() {
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
    node.daemon.process().nth_line(start, "the apps of the registry are known").unwrap();
}
