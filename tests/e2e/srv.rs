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
use crate::tls_proxy::{CertificateAuthority, TlsProxy};

/// SRV name in the connection string.
const SRV_NAME: &str = "db.cluster.test";

/// DNS records of one server.
fn server_records(host: &str, port: u16) -> [String; 2] {
    [format!("srv-host=_mongodb._tcp.{SRV_NAME},{host},{port}"), format!("host-record={host},127.0.0.1")]
}

fn txt_record(options: &str) -> String {
    format!("txt-record={SRV_NAME},{options}")
}

fn start_node(aws: &Moto, dns: &DnsServer, id: &str, role: &str) -> Node {
    Node::start_with(aws, id, role, |options| options.command_prefix = dns.command_prefix()).unwrap()
}

/// Waits for the next line that the node is out of service; checks that it contains all `words`.
fn wait_out_of_service(node: &Node, start: usize, words: &[&str]) {
    let line = node.daemon.process().wait_line_from(start, words[0]).unwrap();
    assert!(words.iter().all(|word| line.contains(word)) && line.contains("out of service"), "{line}");
}

/// A database behind TLS with a certificate for `db1.cluster.test`.
struct TlsDatabase {
    database: Database,
    proxy: TlsProxy,
    folder: TempDir,
    runtime: Runtime,
}

impl TlsDatabase {
    fn new() -> Option<Self> {
        let database = Database::start().unwrap()?;
        let (runtime, authority, folder) =
            (Runtime::new().unwrap(), CertificateAuthority::new("ours"), TempDir::new().unwrap());
        folder.write("ca.pem", authority.pem()).unwrap();
        let (_, server) = replica_set::split_uri(database.uri()).unwrap();
        let proxy = TlsProxy::start(runtime.handle(), server, authority.certify("db1.cluster.test"));
        Some(Self { database, proxy, folder, runtime })
    }

    fn start_aws(&self) -> Option<Moto> {
        let (login, _) = replica_set::split_uri(self.database.uri()).unwrap();
        let ca = self.folder.path().join("ca.pem");
        cluster::start_aws(&format!("mongodb+srv://{login}{SRV_NAME}/?tlsCAFile={}", ca.display())).unwrap()
    }

    fn dns_records(&self) -> Vec<String> {
        [&server_records("db1.cluster.test", self.proxy.port())[..], &[txt_record("authSource=admin")]].concat()
    }
}

#[test]
fn node_joins_by_srv_name_with_tls_and_survives_a_dns_outage() {
    let (Some(dns), Some(database)) = (DnsServer::new().unwrap(), TlsDatabase::new()) else { return };
    let Some(aws) = database.start_aws() else { return };
    dns.serve_records(&database.dns_records()).unwrap();
    let node = start_node(&aws, &dns, "i-0node", "origin");
    node.wait_ready().unwrap();
    wait_failing_check(node.health().unwrap(), None, "");
    let Some(publisher) = publish::start_ffmpeg(&Source::default(), &node.rtmp_url("live/demo").unwrap()).unwrap()
    else {
        return;
    };
    node.wait_live("live/demo").unwrap();
    // The engine resolves the same string by itself.
    let view = "/rest/v2/cluster/nodes/0/50";
    let nodes: Vec<serde_json::Value> = http::get(node.http().unwrap(), view).unwrap().json().unwrap();
    assert_eq!(nodes.iter().filter(|n| n["id"] == "i-0node" && n["status"] == "alive").count(), 1, "{nodes:?}");

    // Known servers are not resolved again.
    let start = node.daemon.process().line_count();
    dns.stop_answering().unwrap();
    check_throughout(Duration::from_secs(16), || {
        assert_eq!(http::get(node.health().unwrap(), "/readyz").unwrap().status, 200)
    });
    let lines = node.daemon.process().lines_from(start);
    let is_outage = |line: &String| line.contains("registry is unreachable");
    assert!(!lines.iter().any(is_outage), "{lines:#?}");

    // A new engine must resolve the name and gets no answer, but serves at once.
    let first = node.daemon.wait_endpoints(None).unwrap();
    kill(Pid::from_raw(first.pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let started = Instant::now();
    let again = node.daemon.wait_endpoints(Some(first.pid)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    drop(publisher);
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &node.rtmp_url("live/demo").unwrap()).unwrap()
    else {
        return;
    };
    node.wait_live("live/demo").unwrap();
    let line = node.daemon.process().wait_line_from(start, "registry is unreachable, streams continue").unwrap();
    assert!(line.contains("DNS gave no answer"), "{line}");
    let start = node.daemon.process().line_count();
    dns.serve_records(&database.dns_records()).unwrap();
    node.daemon.process().wait_line_from(start, "apps read from the registry").unwrap();
    wait_failing_check(again.health, None, "");
}

#[test]
fn unresolvable_srv_name_keeps_a_node_out_of_service_with_a_reason() {
    let (Some(dns), Some(database)) = (DnsServer::new().unwrap(), TlsDatabase::new()) else { return };
    let Some(aws) = database.start_aws() else { return };
    let node = start_node(&aws, &dns, "i-0early", "edge");
    // In turn: no DNS server, no records, a wrong domain, no answer, a forbidden option, two
    // records.
    wait_out_of_service(&node, 0, &["db.cluster.test (SRV) is unreachable: DNS gave no answer"]);
    let records = database.dns_records();
    let check = |entries: &[String], words: &str| {
        let start = node.daemon.process().line_count();
        dns.serve_records(entries).unwrap();
        wait_out_of_service(&node, start, &[words, "db.cluster.test (SRV) is unreachable"]);
    };
    check(&[], "DNS has no entry _mongodb._tcp.db.cluster.test");
    let wrong_domain =
        [&server_records("db1.elsewhere.test", database.proxy.port())[..], &[txt_record("authSource=admin")]].concat();
    check(&wrong_domain, "db1.elsewhere.test, which does not match domain name cluster.test");
    let start = node.daemon.process().line_count();
    dns.stop_answering().unwrap();
    wait_out_of_service(&node, start, &["db.cluster.test (SRV) is unreachable: DNS gave no answer"]);
    let forbidden = [&records[..2], &[txt_record("authSource=admin&tls=false")]].concat();
    check(&forbidden, "TXT record option 'tls' was returned");
    check(&[&records[..], &[txt_record("replicaSet=b")]].concat(), "more than one record");

    // Each reason is logged once, without the password, and no engine runs.
    assert!(node.daemon.process().is_running() && !node.daemon.data_dir().join("engine.json").exists());
    let lines = node.daemon.process().lines();
    let reports: Vec<_> = lines.iter().filter(|l| l.contains("out of service")).collect();
    assert!(reports.len() <= 8, "a flood: {reports:#?}");
    assert!(!lines.iter().any(|l| l.contains("test-only")), "a password in the log");

    dns.serve_records(&records).unwrap();
    node.wait_ready().unwrap();
    wait_failing_check(node.health().unwrap(), None, "");
}

#[test]
fn set_members_and_name_come_from_dns_and_elections_are_followed() {
    let (Some(dns), Some(database)) = (DnsServer::new().unwrap(), TlsDatabase::new()) else { return };
    let set = FakeReplicaSet::start(database.runtime.handle(), database.database.uri()).unwrap();
    let (login, hosts) = set.uri().split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).unwrap();
    let Some(aws) = cluster::start_aws(&format!("mongodb+srv://{login}@{SRV_NAME}/?tls=false")).unwrap() else {
        return;
    };
    let ports = hosts.split('/').next().unwrap().split(',').map(|at| at.rsplit_once(':').unwrap().1.parse().unwrap());
    let servers: Vec<String> =
        ports.enumerate().flat_map(|(n, port)| server_records(&format!("db{n}.cluster.test"), port)).collect();

    // A wrong set name from DNS is used.
    dns.serve_records(&[&servers[..], &[txt_record("replicaSet=another&authSource=admin")]].concat()).unwrap();
    let node = start_node(&aws, &dns, "i-0node", "edge");
    wait_out_of_service(&node, 0, &["db0.cluster.test:", "is unreachable"]);
    drop(node);

    dns.serve_records(&[&servers[..], &[txt_record("replicaSet=test-set&authSource=admin")]].concat()).unwrap();
    let node = start_node(&aws, &dns, "i-0node", "edge");
    node.wait_ready().unwrap();
    let before = set.writes(0);
    assert!(before > 0);
    set.elect(Some(2));
    wait::until("leases to be renewed at the new primary", || (set.writes(2) >= 2).then_some(())).unwrap();
    wait_failing_check(node.health().unwrap(), None, "");
}

/// Checks `holds` repeatedly until `time` has passed.
fn check_throughout(time: Duration, holds: impl Fn()) {
    let started = Instant::now();
    wait::until("a while", || {
        holds();
        (started.elapsed() > time).then_some(())
    })
    .unwrap();
}
