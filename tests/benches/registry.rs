//! What a registry costs: many simulated daemons and engines against one database, in real time.
//!
//! `cargo bench -p headwater-tests --bench registry -- DIR [NODES] [STREAMS] [SECONDS] [JOINS]`, where DIR is a folder in which
//! `tests/mongo/database start DIR` has started one. Every node renews its lease and the leases of its streams each five seconds,
//! spread evenly, as a thousand daemons would that began at random. In the same interval every node looks for JOINS streams of other
//! nodes, as an edge does whose viewers ask for a stream that is not there yet: where it lives, and in which group its owner is. Prints operations per second, how late they were, and
//! the CPU-seconds of the database.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a tool for people")]

use std::path::Path;
use std::time::{Duration, Instant};

use headwater_api::StreamName;
use headwater_api::config::Role;
use headwater_api::documents::{Heartbeat, NodeIncarnation, Load, NodeDocument};
use headwater_api::secret::Secret;
use headwater_api::documents::{Claim, StreamOffer};
use headwater_registry::{MongoDb, Nodes as _, Peers, Registry as _, RegistryError, Streams as _, Timing};
use tokio::task::JoinSet;

/// Daemons that share one client: the database sees the operations of all, over fewer connections.
const PER_CLIENT: usize = 100;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let Some(folder) = arguments.first().map(Path::new) else {
        println!("skipped: name the folder of a running database (tests/mongo/database start DIR)");
        return;
    };
    let number = |index: usize, default: usize| arguments.get(index).map_or(default, |a| a.parse().expect("a number"));
    let (nodes, streams, seconds, joins) = (number(1, 1_000), number(2, 5), number(3, 30), number(4, 5));
    let uri = Secret::new(std::fs::read_to_string(folder.join("uri")).expect("a database runs in that folder").trim());

    let mut clients = Vec::new();
    for _ in 0..nodes.div_ceil(PER_CLIENT) {
        clients.push(MongoDb::open(&uri, Timing::default()).await.expect("a connection string"));
    }
    clients[0].probe().await.expect("the database answers");
    let began = Instant::now();
    let mut starting = JoinSet::new();
    for (index, client) in clients.iter().enumerate() {
        let client = client.clone();
        let range = index * PER_CLIENT..nodes.min((index + 1) * PER_CLIENT);
        starting.spawn(async move {
            let mut started = Vec::new();
            for n in range {
                started.push(start(&client, n, streams).await.expect("registration"));
            }
            (client, started)
        });
    }
    let started = starting.join_all().await;
    let calls = nodes * (1 + streams);
    println!("start: {calls} registrations and claims in {:.1} s", began.elapsed().as_secs_f64());

    let (cpu, own) = (cpu_seconds(folder), own_cpu_seconds());
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds as u64);
    let (mut beating, mut joining) = (JoinSet::new(), JoinSet::new());
    for (at, (client, started)) in started.into_iter().enumerate() {
        for (n, (life, claims)) in started.into_iter().enumerate() {
            let client = client.clone();
            let first = began + Timing::default().heartbeat_interval * (n as u32) / (PER_CLIENT as u32);
            let node = at * PER_CLIENT + n;
            let others: Vec<usize> = (1..=joins).map(|j| (node + j * 37) % nodes).collect();
            if streams > 0 {
                let (client, life) = (client.clone(), life.clone());
                joining.spawn(async move { join(&client, &life, &others, first, end).await });
            }
            beating.spawn(async move { beat(&client, &life, &claims, first, end).await });
        }
    }
    let (writes, failed) = gathered(beating).await;
    let (reads, lost) = gathered(joining).await;
    let elapsed = began.elapsed().as_secs_f64();
    let (cpu, own) = (cpu_seconds(folder) - cpu, own_cpu_seconds() - own);
    let count = writes.len() + reads.len();
    let every = Timing::default().heartbeat_interval;
    println!("{nodes} nodes, {streams} streams each; every {every:?} a heartbeat, a renewal and {joins} joins");
    shown("writes", writes, failed, elapsed);
    if !reads.is_empty() {
        shown("reads of joins, two each", reads, lost, elapsed);
    }
    println!(
        "database: {cpu:.1} CPU-s = {:.2} cores, {:.0} us an operation; the {nodes} daemons: {own:.1} CPU-s",
        cpu / elapsed,
        cpu * 1e6 / count as f64
    );
    clear(&clients[0]).await;
}

/// What all of them took, and how many calls failed.
async fn gathered(mut tasks: JoinSet<(Vec<f64>, usize)>) -> (Vec<f64>, usize) {
    let (mut millis, mut failed) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (took, failures) = done.expect("no panic");
        millis.extend(took);
        failed += failures;
    }
    (millis, failed)
}

fn shown(what: &str, mut millis: Vec<f64>, failed: usize, elapsed: f64) {
    millis.sort_by(f64::total_cmp);
    let at =
        |part: f64| millis.get((millis.len() as f64 * part) as usize).or(millis.last()).copied().unwrap_or(f64::NAN);
    println!(
        "{what}: {} in {elapsed:.1} s = {:.0}/s, {failed} failed; from the moment due p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        millis.len(),
        millis.len() as f64 / elapsed,
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

async fn start(client: &MongoDb, n: usize, streams: usize) -> Result<(NodeIncarnation, Vec<Claim>), RegistryError> {
    let node = NodeDocument {
        id: id(n),
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
    let life = client.register(&node, None).await?;
    let mut claims = Vec::new();
    for s in 0..streams {
        let name = StreamName::new("live", &format!("{n}-{s}")).expect("a legal name");
        let offer = StreamOffer { relay: node.relay.clone(), protocol: "rtmp".to_owned(), started_at_ms: 0 };
        claims.push(client.claim(&life, &name, &offer, None).await?);
    }
    Ok((life, claims))
}

/// Heartbeats until `end`; gives how long each call took from the moment it was due, and how many failed.
async fn beat(client: &MongoDb, life: &NodeIncarnation, claims: &[Claim], first: Instant, end: Instant) -> (Vec<f64>, usize) {
    let (mut took, mut failed) = (Vec::new(), 0);
    let load = Load {
        cpu_permille: 500,
        streams: claims.len() as u32,
        viewers: 100,
        egress_bps: 1_000_000_000,
        ..Load::default()
    };
    let heartbeat = Heartbeat { load, ready: true, ..Heartbeat::default() };
    let mut due = first;
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        failed += usize::from(client.heartbeat(life, &heartbeat).await.is_err());
        took.push(due.elapsed().as_secs_f64() * 1e3);
        if !claims.is_empty() {
            failed += usize::from(!client.renew(life, claims).await.is_ok_and(|lost| lost.is_empty()));
            took.push(due.elapsed().as_secs_f64() * 1e3);
        }
        due += Timing::default().heartbeat_interval;
    }
    (took, failed)
}

/// Joins the first stream of each of `others` once an interval until `end`, spread over it; gives how long each read took from the
/// moment the join was due, and how many failed. Every owner is new to the node, which is the most that a join costs.
async fn join(client: &MongoDb, life: &NodeIncarnation, others: &[usize], first: Instant, end: Instant) -> (Vec<f64>, usize) {
    let (mut took, mut failed) = (Vec::new(), 0);
    let mut due = first;
    while due < end && !others.is_empty() {
        for other in others {
            tokio::time::sleep_until(due.into()).await;
            let name = StreamName::new("live", &format!("{other}-0")).expect("a legal name");
            failed += usize::from(!client.stream(&name).await.is_ok_and(|found| found.is_some()));
            took.push(due.elapsed().as_secs_f64() * 1e3);
            let ids = [life.node.clone(), id(*other)];
            failed += usize::from(client.peers(Peers::ById(&ids)).await.is_err());
            took.push(due.elapsed().as_secs_f64() * 1e3);
            due += Timing::default().heartbeat_interval / others.len() as u32;
        }
    }
    (took, failed)
}

fn id(n: usize) -> String {
    format!("i-{n:017x}")
}

/// Leaves no node and no live stream behind.
async fn clear(client: &MongoDb) {
    for node in client.nodes().await.expect("a list") {
        client.release_all(&node.incarnation()).await.expect("release");
        client.deregister(&node.incarnation()).await.expect("leave");
    }
}

/// User and system time of the database's processes and of those they have waited for.
fn cpu_seconds(folder: &Path) -> f64 {
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
        let ours = pids.iter().any(|p| p == pid);
        if ours || fields.get(1).is_some_and(|parent| pids.iter().any(|p| p == parent)) {
            // utime, stime; of the parents also what their ended children took.
            let times = if ours { 11..15 } else { 11..13 };
            ticks += fields.get(times).map_or(0.0, |t| t.iter().filter_map(|t| t.parse::<f64>().ok()).sum());
        }
    }
    ticks / 100.0
}

fn own_cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, r)| r).split_whitespace().collect();
    fields.get(11..13).map_or(0.0, |t| t.iter().filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0)
}
