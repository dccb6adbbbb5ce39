//! What may be wrong with the registry of a cluster when a node boots, and with the node's place in it: out of service, with
//! a sentence that says why, until it is put right. And what a node of a cluster tells CloudWatch.

use headwater_tests::daemon::Daemon;
use headwater_tests::engine::Options;
use headwater_tests::metadata::Fake;
use headwater_tests::mongo::Database;
use headwater_tests::moto::Moto;
use headwater_tests::wait::{self, PATIENCE};
use nix::sys::signal::Signal;

const TAGS: [(&str, &str); 3] =
    [("headwater:role", "edge"), ("headwater:cluster", "demo"), ("headwater:registry", "secret:demo/registry")];

fn start(id: &str, moto: &Moto) -> (Daemon, Fake) {
    let metadata = Fake::start(&TAGS).unwrap();
    metadata.change(|s| s.id = id.to_owned());
    let mut options = Options::with(|c| {
        c.metadata.endpoint = metadata.address();
        c.relay.listen = "127.0.0.1:0".parse().unwrap();
        c.limits.egress_mbps = 100_000.try_into().ok();
    });
    options.environment = moto.environment();
    (Daemon::start(options).unwrap(), metadata)
}

/// A cluster's AWS, whose registry is at `uri`.
fn aws(uri: &str) -> Option<Moto> {
    let moto = Moto::start().unwrap()?;
    moto.secret("demo/registry", uri).unwrap();
    moto.secret("headwater/demo/relay", "the relay secret of this test").unwrap();
    Some(moto)
}

#[test]
fn a_node_whose_database_is_away_at_boot_waits_out_of_service_and_comes_up_when_it_is_back() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(moto) = aws(database.uri()) else { return };
    database.kill().unwrap();
    let (node, _metadata) = start("i-0early", &moto);
    let line = node.process().line("out of service").unwrap();
    assert!(line.contains("is not to be reached"), "{line}");
    assert!(node.process().is_running() && !node.data_dir().join("engine.json").exists());
    database.restart().unwrap();
    node.process().line("node ready").unwrap();
}

#[test]
fn a_node_that_waits_for_its_database_ends_on_sigterm() {
    let Some(moto) = aws("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500") else { return };
    let (node, _metadata) = start("i-0early", &moto);
    node.process().line("out of service").unwrap();
    node.process().signal(Signal::SIGTERM);
    assert_eq!(node.process().exit(PATIENCE).unwrap().code(), Some(0));
}

#[test]
fn a_wrong_password_is_said_and_a_right_one_is_found_without_a_restart() {
    let Some(database) = Database::start().unwrap() else { return };
    let (login, host) = database.uri().split_once('@').unwrap();
    let Some(moto) = aws(&format!("{login}wrong@{host}")) else { return };
    let (node, _metadata) = start("i-0wrong", &moto);
    let line = node.process().line("out of service").unwrap();
    assert!(line.contains("refuses"), "{line}");
    assert!(!line.contains("wrong@"), "a password in the log");
    moto.put_secret("demo/registry", database.uri()).unwrap();
    node.process().line("node ready").unwrap();
}

#[test]
fn of_two_instances_with_one_id_the_later_stays() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(moto) = aws(database.uri()) else { return };
    let (first, _metadata) = start("i-0twin", &moto);
    first.process().line("node ready").unwrap();
    let (second, _metadata) = start("i-0twin", &moto);
    second.process().line("node ready").unwrap();
    let line = first.process().line("another life of this node has taken over").unwrap();
    assert!(line.contains("is the same id used twice?"), "{line}");
    assert_eq!(first.process().exit(PATIENCE).unwrap().code(), Some(0));
    assert!(second.process().is_running());
}

#[test]
fn the_egress_headroom_of_a_node_reaches_cloudwatch_by_cluster_and_role() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(moto) = aws(database.uri()) else { return };
    let (node, _metadata) = start("i-0metric", &moto);
    node.process().line("node ready").unwrap();
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
        let xml = moto.cloudwatch("GetMetricStatistics", &query).ok()?;
        let (_, rest) = xml.split_once("<Average>")?;
        rest.split_once('<')?.0.parse().ok()
    })
    .unwrap();
    assert!((90.0..=100.0).contains(&percent), "{percent}");
}
