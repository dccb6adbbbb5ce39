//! Faults of the registry of a cluster at boot, and of the node's entry in it: the node stays out
//! of service and reports the reason until the fault is fixed. Also the metric of a node in
//! CloudWatch.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use headwater_api::config::{RegistryKind, Role};
use headwater_api::secret::Secret;
use headwater_registry::{MongoDb, Nodes as _, Timing};
use headwater_tests::cluster::{self, Node, RELAY_SECRET};
use headwater_tests::daemon::Daemon;
use headwater_tests::delay_proxy::{DelayMode, DelayProxy};
use headwater_tests::engine::Options;
use headwater_tests::http;
use headwater_tests::mongo::Database;
use headwater_tests::moto::Moto;
use headwater_tests::replica_set::FakeReplicaSet;
use headwater_tests::temp::TempDir;
use headwater_tests::wait::{self, WAIT_TIMEOUT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::readiness::wait_failing_check;

/// Lease of a node.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// The longest interval between two renewals (6 s), a hanging engine (2 s), and a busy machine.
const MAX_SILENCE_MS: u64 = 11_000;

fn start_edge(id: &str, aws: &Moto) -> Node {
    Node::start_with(aws, id, "edge", |o| o.config.limits.egress_mbps = 100_000.try_into().ok()).unwrap()
}

#[test]
fn node_waits_for_an_unreachable_database_at_boot() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    database.kill().unwrap();
    let node = start_edge("i-0early", &aws);
    let line = node.daemon.process().wait_line("out of service").unwrap();
    assert!(line.contains("is unreachable"), "{line}");
    assert!(node.daemon.process().is_running() && !node.daemon.data_dir().join("engine.json").exists());
    database.restart().unwrap();
    node.wait_ready().unwrap();
}

#[test]
fn node_waiting_for_its_database_stops_on_sigterm() {
    let Some(aws) = cluster::start_aws("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500").unwrap() else { return };
    let node = start_edge("i-0early", &aws);
    node.daemon.process().wait_line("out of service").unwrap();
    node.daemon.process().signal(Signal::SIGTERM);
    assert_eq!(node.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
}

#[test]
fn sigterm_during_boot_leaves_neither_an_engine_nor_a_registry_entry() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    // Before it has joined, before its engine is ready, and when it has just become ready.
    for (at, moment) in ["headwaterd starting", "engine serving", "node ready"].into_iter().enumerate() {
        let node = start_edge(&format!("i-0boot{at}"), &aws);
        node.daemon.process().wait_line(moment).unwrap();
        node.daemon.process().signal(Signal::SIGTERM);
        assert_eq!(node.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0), "{moment}");
        assert!(!node.daemon.data_dir().join("engine.json").exists(), "{moment}: an engine still runs");
        assert!(!node.daemon.process().lines().iter().any(|line| line.contains("panicked")), "{moment}");
    }
    let witness = start_edge("i-0witness", &aws);
    witness.wait_ready().unwrap();
    let nodes: Vec<Value> = http::get(witness.http().unwrap(), "/rest/v2/cluster/nodes/0/50").unwrap().json().unwrap();
    assert!(nodes.iter().all(|n| n["id"] == "i-0witness"), "{nodes:?}");
}

#[test]
fn node_stopped_while_registering_removes_its_entry() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let set = FakeReplicaSet::start(runtime.handle(), database.uri()).unwrap();
    let Some(aws) = cluster::start_aws(set.uri()).unwrap() else { return };
    // Opening the registry creates its collections.
    let registry = runtime.block_on(MongoDb::open(&Secret::new(database.uri()), Timing::default())).unwrap();
    let registered = || {
        let nodes = runtime.block_on(registry.nodes()).unwrap();
        nodes.into_iter().map(|node| node.node.id).collect::<Vec<_>>()
    };
    assert_eq!(registered(), Vec::<String>::new());
    set.delay_writes(Duration::from_millis(800));
    let node = start_edge("i-0brief", &aws);
    wait::until("the entry to be made", || (registered() == ["i-0brief"]).then_some(())).unwrap();
    node.daemon.process().signal(Signal::SIGTERM);
    assert_eq!(node.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    node.daemon.process().wait_line("headwaterd ended before it was registered").unwrap();
    assert_eq!(registered(), Vec::<String>::new());
}

#[test]
fn wrong_password_is_reported_and_a_corrected_one_is_used_without_restart() {
    let Some(database) = Database::start().unwrap() else { return };
    let (login, host) = database.uri().split_once('@').unwrap();
    let Some(aws) = cluster::start_aws(&format!("{login}wrong@{host}")).unwrap() else { return };
    let node = start_edge("i-0wrong", &aws);
    let line = node.daemon.process().wait_line("out of service").unwrap();
    assert!(line.contains("refused"), "{line}");
    cluster::change_registry_uri(&aws, database.uri()).unwrap();
    node.wait_ready().unwrap();
    // Covers both passwords, which begin alike.
    assert!(!node.daemon.process().lines().iter().any(|l| l.contains(login)), "a password in the log");
}

#[test]
fn invalid_uri_in_aws_is_reported_and_a_corrected_one_is_used_without_restart() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws("mongodb://u:hunter2@127.0.0.1:port").unwrap() else { return };
    let node = start_edge("i-0none", &aws);
    let line = node.daemon.process().wait_line("out of service").unwrap();
    assert!(line.contains("secret demo/registry is unusable: the MongoDB connection string is invalid"), "{line}");
    cluster::change_registry_uri(&aws, database.uri()).unwrap();
    node.wait_ready().unwrap();
    assert!(!node.daemon.process().lines().iter().any(|l| l.contains("hunter2")), "a password in the log");
}

#[test]
fn invalid_uri_in_a_local_file_exits_with_78() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| Some(folder.write(name, text).unwrap());
    let (uri_file, secret_file) = (write("uri", "mongodb://u:hunter2@127.0.0.1:port"), write("relay", RELAY_SECRET));
    let options = Options::with(|c| {
        c.node.role = Role::Edge;
        (c.registry.kind, c.registry.uri_file) = (RegistryKind::MongoDb, uri_file);
        c.relay.secret_file = secret_file;
    });
    let node = Daemon::start(options).unwrap();
    assert_eq!(node.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(78));
}

#[test]
fn draining_node_renews_its_lease_while_reads_are_delayed() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let set = FakeReplicaSet::start(runtime.handle(), database.uri()).unwrap();
    let Some(aws) = cluster::start_aws(set.uri()).unwrap() else { return };
    let node =
        Node::start_with(&aws, "i-0slow", "edge", |o| o.config.node.drain_ms = 60_000.try_into().unwrap()).unwrap();
    node.wait_ready().unwrap();
    wait_failing_check(node.health().unwrap(), None, "");
    let registry = runtime.block_on(MongoDb::open(&Secret::new(database.uri()), Timing::default())).unwrap();
    let entry = || runtime.block_on(registry.node("i-0slow")).unwrap().unwrap();
    // A stopped engine drains until the drain deadline. A draining node reads the other nodes from
    // the registry, because its viewers move there.
    let engine = Pid::from_raw(node.daemon.wait_endpoints(None).unwrap().pid.try_into().unwrap());
    kill(engine, Signal::SIGSTOP).unwrap();
    set.delay_reads(LEASE_DURATION);
    node.daemon.process().signal(Signal::SIGTERM);
    wait::until("the entry to show the drain", || entry().heartbeat.draining.then_some(())).unwrap();
    let started = Instant::now();
    wait::until("one and a half leases", || {
        let entry = entry();
        assert!(entry.alive && entry.silent_ms < MAX_SILENCE_MS, "no renewal for {} ms", entry.silent_ms);
        (started.elapsed() > LEASE_DURATION + LEASE_DURATION / 2).then_some(())
    })
    .unwrap();
    kill(engine, Signal::SIGCONT).unwrap();
    assert_eq!(node.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
}

#[test]
fn database_delay_of_two_seconds_costs_neither_boot_nor_lease() {
    let Some(database) = Database::start().unwrap() else { return };
    let port = database.uri().split_once("127.0.0.1:").and_then(|(_, rest)| rest.split_once('/')).unwrap().0;
    let server: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = database.uri().replace(&server.to_string(), &listener.local_addr().unwrap().to_string());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let line = DelayProxy::start(runtime.handle(), listener, move || Ok(TcpStream::connect(server)?)).unwrap();
    line.set_mode(DelayMode::Delayed(Duration::from_secs(2)));
    let (Some(near_aws), Some(far_aws)) =
        (cluster::start_aws(database.uri()).unwrap(), cluster::start_aws(&far).unwrap())
    else {
        return;
    };
    let (near, far) = (start_edge("i-0near", &near_aws), start_edge("i-0far", &far_aws));
    near.wait_ready().unwrap();
    far.wait_ready().unwrap();
    wait_failing_check(far.health().unwrap(), None, "");
    // Longer than a lease lasts without a renewal.
    let (http, health, started) = (near.http().unwrap(), far.health().unwrap(), Instant::now());
    wait::until("one lease", || {
        let nodes: Vec<Value> = http::get(http, "/rest/v2/cluster/nodes/0/50").unwrap().json().unwrap();
        assert!(nodes.iter().any(|n| n["id"] == "i-0far" && n["status"] == "alive"), "{nodes:?}");
        (started.elapsed() > LEASE_DURATION).then_some(())
    })
    .unwrap();
    // A heartbeat that needed a new connection may have failed; the next one succeeds.
    wait_failing_check(health, None, "");
}

#[test]
fn later_of_two_instances_with_one_id_stays() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    let first = start_edge("i-0twin", &aws);
    first.wait_ready().unwrap();
    let second = start_edge("i-0twin", &aws);
    second.wait_ready().unwrap();
    let line = first.daemon.process().wait_line("another incarnation of this node has taken over").unwrap();
    assert!(line.contains("is the same id used twice?"), "{line}");
    assert_eq!(first.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    assert!(second.daemon.process().is_running());
}

#[test]
fn egress_headroom_is_published_to_cloudwatch_by_cluster_and_role() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    let node = start_edge("i-0metric", &aws);
    node.wait_ready().unwrap();
    let query = [
        ("Namespace", "Headwater"),
        ("MetricName", "EgressHeadroom"),
        ("Dimensions.member.1.Name", "Cluster"),
        ("Dimensions.member.1.Value", "demo"),
        ("Dimensions.member.2.Name", "Role"),
        ("Dimensions.member.2.Value", "edge"),
        ("StartTime", "2020-01-01T00:00:00Z"),
        ("EndTime", "2099-01-01T00:00:00Z"),
        ("Period", "86400"),
        ("Statistics.member.1", "Average"),
    ];
    let percent: f64 = wait::until("a value in CloudWatch", || {
        let xml = aws.cloudwatch("GetMetricStatistics", &query).ok()?;
        let (_, rest) = xml.split_once("<Average>")?;
        rest.split_once('<')?.0.parse().ok()
    })
    .unwrap();
    assert!((90.0..=100.0).contains(&percent), "{percent}");
}
