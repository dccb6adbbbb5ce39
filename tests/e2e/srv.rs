//! A node that finds the registry of its cluster by SRV name (`mongodb+srv://`): dnsmasq serves the
//! records, the node's own resolver reads them, and TLS is on, the default for such a string.

use std::time::{Duration, Instant};

use headwater_tests::cluster::{self, Node};
use headwater_tests::dns::DnsServer;
use headwater_tests::http;
use headwater_tests::mongo::Database;
use headwater_tests::moto::Moto;
use headwater_tests::publish::{self, Source};
use headwater_tests::replica_set::{self, FakeReplicaSet};
use headwater_tests::temp::TempDir;
use headwater_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

use crate::readiness::wait_failing_check;
use crate::tls_line::{CertificateAuthority, TlsProxy};

/// SRV name in the connection string.
const SRV_NAME: &str = "db.cluster.test";

/// DNS records of one server.
fn server(host: &str, port: u16) -> [String; 2] {
    [format!("srv-host=_mongodb._tcp.{SRV_NAME},{host},{port}"), format!("host-record={host},127.0.0.1")]
}

fn text(options: &str) -> String {
    format!("txt-record={SRV_NAME},{options}")
}

fn start(aws: &Moto, dns: &DnsServer, id: &str, role: &str) -> Node {
    Node::start_with(aws, id, role, |options| options.command_prefix = dns.command_prefix()).unwrap()
}

/// Waits for the next line that the node is out of service; checks that it contains all `words`.
fn says(node: &Node, start: usize, words: &[&str]) {
    let line = node.daemon.process().wait_line_from(start, words[0]).unwrap();
    assert!(words.iter().all(|word| line.contains(word)) && line.contains("out of service"), "{line}");
}

/// A database behind TLS with a certificate for `db1.cluster.test`.
struct TlsDatabase {
    database: Database,
    line: TlsProxy,
    folder: TempDir,
    runtime: Runtime,
}

impl TlsDatabase {
    fn new() -> Option<Self> {
        let database = Database::start().unwrap()?;
        let (runtime, authority, folder) = (Runtime::new().unwrap(), CertificateAuthority::new("ours"), TempDir::new().unwrap());
        folder.write("ca.pem", authority.pem()).unwrap();
        let (_, server) = replica_set::split_uri(database.uri()).unwrap();
        let line = TlsProxy::start(runtime.handle(), server, authority.certify("db1.cluster.test"));
        Some(Self { database, line, folder, runtime })
    }

    fn aws(&self) -> Option<Moto> {
        let (login, _) = replica_set::split_uri(self.database.uri()).unwrap();
        let ca = self.folder.path().join("ca.pem");
        cluster::start_aws(&format!("mongodb+srv://{login}{SRV_NAME}/?tlsCAFile={}", ca.display())).unwrap()
    }

    fn entries(&self) -> Vec<String> {
        [&server("db1.cluster.test", self.line.port())[..], &[text("authSource=admin")]].concat()
    }
}

#[test]
fn node_joins_by_srv_name_with_tls_and_survives_a_dns_outage() {
    let (Some(dns), Some(scene)) = (DnsServer::new().unwrap(), TlsDatabase::new()) else { return };
    let Some(aws) = scene.aws() else { return };
    dns.serve_records(&scene.entries()).unwrap();
    let node = start(&aws, &dns, "i-0node", "origin");
    node.wait_ready().unwrap();
    wait_failing_check(node.health().unwrap(), None, "");
    let Some(publisher) = publish::start_ffmpeg(&Source::default(), &node.rtmp_url("live/demo").unwrap()).unwrap() else {
        return;
    };
    node.wait_live("live/demo").unwrap();
    // The engine resolves the same string by itself.
    let view = "/rest/v2/cluster/nodes/0/50";
    let nodes: Vec<serde_json::Value> = http::get(node.http().unwrap(), view).unwrap().json().unwrap();
    assert_eq!(nodes.iter().filter(|n| n["id"] == "i-0node" && n["status"] == "alive").count(), 1, "{nodes:?}");

    // Known servers are not resolved again.
    let mark = node.daemon.process().line_count();
    dns.stop_answering().unwrap();
    lasts(Duration::from_secs(16), || assert_eq!(http::get(node.health().unwrap(), "/readyz").unwrap().status, 200));
    let lines = node.daemon.process().lines_from(mark);
    let is_outage = |line: &String| line.contains("registry is unreachable");
    assert!(!lines.iter().any(is_outage), "{lines:#?}");

    // A new engine must resolve the name and gets no answer, but serves at once.
    let first = node.daemon.wait_endpoints(None).unwrap();
    kill(Pid::from_raw(first.pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    let again = node.daemon.wait_endpoints(Some(first.pid)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(publisher);
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &node.rtmp_url("live/demo").unwrap()).unwrap() else {
        return;
    };
    node.wait_live("live/demo").unwrap();
    let line = node.daemon.process().wait_line_from(mark, "registry is unreachable, streams continue").unwrap();
    assert!(line.contains("DNS gave no answer"), "{line}");
    let mark = node.daemon.process().line_count();
    dns.serve_records(&scene.entries()).unwrap();
    node.daemon.process().wait_line_from(mark, "apps read from the registry").unwrap();
    wait_failing_check(again.health, None, "");
}

#[test]
fn unresolvable_srv_name_keeps_a_node_out_of_service_with_a_reason() {
    let (Some(dns), Some(scene)) = (DnsServer::new().unwrap(), TlsDatabase::new()) else { return };
    let Some(aws) = scene.aws() else { return };
    let node = start(&aws, &dns, "i-0early", "edge");
    // In turn: no DNS server, no records, a wrong domain, no answer, a forbidden option, two
    // records.
    says(&node, 0, &["db.cluster.test (SRV) is not to be reached: DNS gave no answer"]);
    let good = scene.entries();
    let check = |entries: &[String], words: &str| {
        let mark = node.daemon.process().line_count();
        dns.serve_records(entries).unwrap();
        says(&node, mark, &[words, "db.cluster.test (SRV) is not to be reached"]);
    };
    check(&[], "DNS has no entry _mongodb._tcp.db.cluster.test");
    let stranger = [&server("db1.elsewhere.test", scene.line.port())[..], &[text("authSource=admin")]].concat();
    check(&stranger, "db1.elsewhere.test, which does not match domain name cluster.test");
    let mark = node.daemon.process().line_count();
    dns.stop_answering().unwrap();
    says(&node, mark, &["db.cluster.test (SRV) is not to be reached: DNS gave no answer"]);
    let forbidden = [&good[..2], &[text("authSource=admin&tls=false")]].concat();
    check(&forbidden, "TXT record option 'tls' was returned");
    check(&[&good[..], &[text("replicaSet=b")]].concat(), "more than one record");

    // Each reason is logged once, without the password, and no engine runs.
    assert!(node.daemon.process().is_running() && !node.daemon.data_dir().join("engine.json").exists());
    let lines = node.daemon.process().lines();
    let out: Vec<_> = lines.iter().filter(|l| l.contains("out of service")).collect();
    assert!(out.len() <= 8, "a flood: {out:#?}");
    assert!(!lines.iter().any(|l| l.contains("test-only")), "a password in the log");

    dns.serve_records(&good).unwrap();
    node.wait_ready().unwrap();
    wait_failing_check(node.health().unwrap(), None, "");
}

#[test]
fn set_members_and_name_come_from_dns_and_elections_are_followed() {
    let (Some(dns), Some(scene)) = (DnsServer::new().unwrap(), TlsDatabase::new()) else { return };
    let set = FakeReplicaSet::start(scene.runtime.handle(), scene.database.uri()).unwrap();
    let (login, hosts) = set.uri().split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).unwrap();
    let Some(aws) = cluster::start_aws(&format!("mongodb+srv://{login}@{SRV_NAME}/?tls=false")).unwrap() else { return };
    let ports = hosts.split('/').next().unwrap().split(',').map(|at| at.rsplit_once(':').unwrap().1.parse().unwrap());
    let servers: Vec<String> =
        ports.enumerate().flat_map(|(n, port)| server(&format!("db{n}.cluster.test"), port)).collect();

    // A wrong set name from DNS is used.
    dns.serve_records(&[&servers[..], &[text("replicaSet=another&authSource=admin")]].concat()).unwrap();
    let node = start(&aws, &dns, "i-0node", "edge");
    says(&node, 0, &["db0.cluster.test:", "is not to be reached"]);
    drop(node);

    dns.serve_records(&[&servers[..], &[text("replicaSet=of-the-test&authSource=admin")]].concat()).unwrap();
    let node = start(&aws, &dns, "i-0node", "edge");
    node.wait_ready().unwrap();
    let before = set.writes(0);
    assert!(before > 0);
    set.elect(Some(2));
    wait::until("leases to be renewed at the new primary", || (set.writes(2) >= 2).then_some(())).unwrap();
    wait_failing_check(node.health().unwrap(), None, "");
}

/// Checks `holds` repeatedly until `time` has passed.
fn lasts(time: Duration, holds: impl Fn()) {
    let begun = Instant::now();
    wait::until("a while", || {
        holds();
        (begun.elapsed() > time).then_some(())
    })
    .unwrap();
}
