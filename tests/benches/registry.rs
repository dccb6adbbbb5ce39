//! The cost of a registry: many simulated nodes against one database, in real time.
//!
//! ```text
//! cargo bench -p headwater-tests --bench registry -- DIR [NODES] [STREAMS] [SECONDS] [JOINS]
//! ```
//!
//! DIR is a folder in which `tests/mongo/database start DIR` has started a database. Every node has
//! a client of its own, with the connection pool that a daemon opens. It renews its lease and the
//! leases of its STREAMS streams every five seconds; the renewals of all nodes are spread evenly,
//! as those of daemons that started at random. In the same interval every node looks up JOINS
//! streams of other nodes and the node groups of their owners, as an edge does when a viewer
//! requests a stream that it does not have.
//!
//! Prints operations per second, their latency, connections, and the CPU time of the database.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a command-line tool")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_api::StreamName;
use headwater_api::config::Role;
use headwater_api::documents::{Claim, Heartbeat, Load, NodeDocument, NodeIncarnation, StreamOffer};
use headwater_api::secret::Secret;
use headwater_registry::{MongoDb, Nodes as _, Peers, Registry as _, RegistryError, Streams as _, Timing};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Maximum number of nodes that start at the same time, so that connecting a thousand clients does
/// not exceed the listen backlog of the database.
const MAX_STARTING: usize = 50;

/// The arguments after DIR, with their defaults.
#[derive(Debug, Clone, Copy)]
struct Options {
    nodes: usize,
    streams: usize,
    seconds: u64,
    joins: usize,
}

/// One registered node and its own client.
struct SimulatedNode {
    number: usize,
    client: MongoDb,
    incarnation: NodeIncarnation,
    claims: Vec<Claim>,
}

/// Latencies of calls, in milliseconds from the moment each was due, and the number of failures.
#[derive(Debug, Default)]
struct Outcome {
    latencies_ms: Vec<f64>,
    failed: usize,
}

impl Outcome {
    fn add<T>(&mut self, due: Instant, result: &Result<T, RegistryError>, is_expected: impl FnOnce(&T) -> bool) {
        self.latencies_ms.push(due.elapsed().as_secs_f64() * 1e3);
        self.failed += usize::from(!result.as_ref().is_ok_and(is_expected));
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let Some(folder) = arguments.first().map(Path::new) else {
        println!("skipped: name the folder of a running database (tests/mongo/database start DIR)");
        return;
    };
    let number = |index: usize, default: usize| arguments.get(index).map_or(default, |a| a.parse().expect("a number"));
    let options =
        Options { nodes: number(1, 1_000), streams: number(2, 5), seconds: number(3, 30) as u64, joins: number(4, 5) };
    let uri = Secret::new(std::fs::read_to_string(folder.join("uri")).expect("a database runs in that folder").trim());
    raise_open_file_limit();

    let nodes = start_all(&uri, options).await;
    run(folder, options, &nodes).await;
    remove_all(&uri).await;
}

/// Opens a client for each node, registers the node, and claims its streams.
async fn start_all(uri: &Secret, options: Options) -> Vec<Arc<SimulatedNode>> {
    let start = Instant::now();
    let permits = Arc::new(Semaphore::new(MAX_STARTING));
    let mut starting = JoinSet::new();
    for number in 0..options.nodes {
        let (uri, permits) = (uri.clone(), permits.clone());
        starting.spawn(async move {
            let _permit = permits.acquire_owned().await.expect("an open semaphore");
            Arc::new(SimulatedNode::start(&uri, number, options.streams).await.expect("registration"))
        });
    }
    let nodes = starting.join_all().await;
    let calls = options.nodes * (1 + options.streams);
    println!("start: {calls} registrations and claims in {:.1} s", start.elapsed().as_secs_f64());
    nodes
}

/// Renews and looks up streams for the requested duration, then prints the results.
async fn run(folder: &Path, options: Options, nodes: &[Arc<SimulatedNode>]) {
    let (database_cpu, own_cpu) = (database_cpu_seconds(folder), own_cpu_seconds());
    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds);
    let interval = Timing::default().heartbeat_interval;
    let (mut renewing, mut joining) = (JoinSet::new(), JoinSet::new());
    for node in nodes {
        let first = start + interval * (node.number as u32) / (options.nodes as u32);
        if options.streams > 0 {
            let owners = (1..=options.joins).map(|j| (node.number + j * 37) % options.nodes).collect();
            let node = node.clone();
            joining.spawn(async move { node.join_until(owners, first, end).await });
        }
        let node = node.clone();
        renewing.spawn(async move { node.renew_until(first, end).await });
    }
    let writes = collect(renewing).await;
    let connections = open_sockets();
    let reads = collect(joining).await;
    let elapsed = start.elapsed().as_secs_f64();
    let (database_cpu, own_cpu) = (database_cpu_seconds(folder) - database_cpu, own_cpu_seconds() - own_cpu);

    let Options { nodes, streams, joins, .. } = options;
    let operations = writes.latencies_ms.len() + reads.latencies_ms.len();
    println!("{nodes} nodes, {streams} streams each; every {interval:?} a heartbeat, a renewal and {joins} joins");
    print_outcome("writes", writes, elapsed);
    if !reads.latencies_ms.is_empty() {
        print_outcome("reads of joins, two each", reads, elapsed);
    }
    println!("{nodes} clients with {connections} connections");
    println!(
        "database: {database_cpu:.1} CPU-s = {:.2} cores, {:.0} us an operation; the {nodes} clients: {own_cpu:.1} CPU-s",
        database_cpu / elapsed,
        database_cpu * 1e6 / operations as f64
    );
}

impl SimulatedNode {
    async fn start(uri: &Secret, number: usize, streams: usize) -> Result<Self, RegistryError> {
        let client = MongoDb::open(uri, Timing::default()).await?;
        let node = NodeDocument {
            id: node_id(number),
            role: Role::Origin,
            addresses: vec![[192, 0, 2, 1].into()],
            relay: vec![([10, 0, 0, 1], 5000).into()],
            url: Some("https://192.0.2.1:5443".to_owned()),
            group: "eu".to_owned(),
            zone: "eu-central-1a".to_owned(),
            instance_type: "c7g.large".to_owned(),
            image: "ami-0123456789abcdef0".to_owned(),
            version: "0.1.0".to_owned(),
            started_at_ms: 1_700_000_000_000,
        };
        let incarnation = client.register(&node, None).await?;
        let mut claims = Vec::new();
        for stream in 0..streams {
            let offer = StreamOffer { relay: node.relay.clone(), protocol: "rtmp".to_owned(), started_at_ms: 0 };
            claims.push(client.claim(&incarnation, &stream_name(number, stream), &offer, None).await?);
        }
        Ok(Self { number, client, incarnation, claims })
    }

    /// Sends heartbeats and renews the node's streams until `end`.
    async fn renew_until(&self, first: Instant, end: Instant) -> Outcome {
        let load = Load {
            cpu_permille: 500,
            streams: self.claims.len() as u32,
            viewers: 100,
            egress_bps: 1_000_000_000,
            ..Load::default()
        };
        let heartbeat = Heartbeat { load, ready: true, ..Heartbeat::default() };
        let mut outcome = Outcome::default();
        let mut due = first;
        while due < end {
            tokio::time::sleep_until(due.into()).await;
            outcome.add(due, &self.client.heartbeat(&self.incarnation, &heartbeat).await, |_| true);
            if !self.claims.is_empty() {
                outcome.add(due, &self.client.renew(&self.incarnation, &self.claims).await, |lost| lost.is_empty());
            }
            due += Timing::default().heartbeat_interval;
        }
        outcome
    }

    /// Looks up the first stream of each owner once per interval until `end`, spread over the
    /// interval. Every owner is new to the node, which is the most expensive join.
    async fn join_until(&self, owners: Vec<usize>, first: Instant, end: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let mut due = first;
        while due < end && !owners.is_empty() {
            for owner in &owners {
                tokio::time::sleep_until(due.into()).await;
                outcome.add(due, &self.client.stream(&stream_name(*owner, 0)).await, |found| found.is_some());
                let ids = [self.incarnation.node.clone(), node_id(*owner)];
                outcome.add(due, &self.client.peers(Peers::ById(&ids)).await, |_| true);
                due += Timing::default().heartbeat_interval / owners.len() as u32;
            }
        }
        outcome
    }
}

async fn collect(mut tasks: JoinSet<Outcome>) -> Outcome {
    let mut all = Outcome::default();
    while let Some(outcome) = tasks.join_next().await {
        let outcome = outcome.expect("no panic");
        all.latencies_ms.extend(outcome.latencies_ms);
        all.failed += outcome.failed;
    }
    all
}

fn print_outcome(what: &str, outcome: Outcome, elapsed: f64) {
    let Outcome { latencies_ms: mut ms, failed } = outcome;
    ms.sort_by(f64::total_cmp);
    let at = |part: f64| ms.get((ms.len() as f64 * part) as usize).or(ms.last()).copied().unwrap_or(f64::NAN);
    println!(
        "{what}: {} in {elapsed:.1} s = {:.0}/s, {failed} failed; from the moment due p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        ms.len(),
        ms.len() as f64 / elapsed,
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn node_id(number: usize) -> String {
    format!("i-{number:017x}")
}

fn stream_name(node: usize, stream: usize) -> StreamName {
    StreamName::new("live", &format!("{node}-{stream}")).expect("a legal name")
}

/// Removes all nodes and live streams from the database.
async fn remove_all(uri: &Secret) {
    let client = MongoDb::open(uri, Timing::default()).await.expect("a connection string");
    client.probe().await.expect("the database answers");
    for node in client.nodes().await.expect("a list") {
        client.release_all(&node.incarnation()).await.expect("release");
        client.deregister(&node.incarnation()).await.expect("deregistration");
    }
}

/// Every client has two connections that monitor the server, and up to eight for calls.
fn raise_open_file_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit may be raised to the hard one");
}

/// Number of open sockets of this process.
fn open_sockets() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    files.filter(|f| std::fs::read_link(f.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))).count()
}

/// User and system time of the database's processes, their children, and the ended children that
/// they have waited for.
fn database_cpu_seconds(folder: &Path) -> f64 {
    let pids: Vec<String> = ["postgres", "ferretdb", "mongod"]
        .iter()
        .filter_map(|name| std::fs::read_to_string(folder.join(format!("{name}.pid"))).ok())
        .map(|pid| pid.trim().to_owned())
        .collect();
    let mut ticks = 0.0;
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((pid, rest)) = stat.split_once(' ') else { continue };
        let fields: Vec<&str> = rest.rsplit_once(')').map_or(rest, |(_, r)| r).split_whitespace().collect();
        let is_parent = pids.iter().any(|p| p == pid);
        if is_parent || fields.get(1).is_some_and(|parent| pids.iter().any(|p| p == parent)) {
            // proc_pid_stat(5): utime, stime; of the parents also cutime, cstime.
            let times = if is_parent { 11..15 } else { 11..13 };
            ticks += fields.get(times).map_or(0.0, |t| t.iter().filter_map(|t| t.parse::<f64>().ok()).sum());
        }
    }
    ticks / 100.0
}

/// User and system time of this process.
fn own_cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, r)| r).split_whitespace().collect();
    fields.get(11..13).map_or(0.0, |t| t.iter().filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0)
}
