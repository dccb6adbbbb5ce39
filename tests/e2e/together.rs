//! All nodes of a cluster lose their registry at the same time and get it back at the same time:
//! they must not all return at once.
//!
//! The nodes are simulated without media. Each has its own registry client, with its connections
//! and its monitor, and calls the registry at the same intervals as the two processes of a node. A
//! proxy in front of the database counts the calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headwater_api::StreamName;
use headwater_api::documents::{Heartbeat, NodeIncarnation, NodeDocument};
use headwater_api::secret::Secret;
use headwater_api::documents::{Claim, StreamOffer};
use headwater_registry::{HeartbeatInterval, MongoDb, Nodes as _, Streams as _, Timing};
use headwater_tests::mongo::Database;
use headwater_tests::replica_set;
use headwater_tests::toll::{TappedProxy, LinkState};
use headwater_tests::wait;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const NODES: usize = 100;
/// Per interval, each node sends a heartbeat (daemon) and a renewal of its streams (engine).
const WRITES_PER_INTERVAL: usize = 2 * NODES;
/// Longer than a lease, every interval and every call: all nodes are affected.
const OUTAGE_DURATION: Duration = Duration::from_secs(22);
/// Time-out of a heartbeat, as in the daemon.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// A running cluster behind a proxy.
struct SimulatedCluster {
    line: TappedProxy,
    /// Number of successful calls of every task: heartbeats first, then renewals.
    heard: Arc<Vec<AtomicUsize>>,
    runtime: Runtime,
    _database: Database,
}

impl SimulatedCluster {
    fn start() -> Option<Self> {
        let database = Database::start().unwrap()?;
        let runtime = Runtime::new().unwrap();
        let (login, server) = replica_set::split_uri(database.uri()).unwrap();
        let line = TappedProxy::start(runtime.handle(), server).unwrap();
        let uri = Secret::new(format!("mongodb://{login}{}/?directConnection=true", line.address()));
        let heard: Arc<Vec<AtomicUsize>> = Arc::new((0..2 * NODES).map(|_| AtomicUsize::new(0)).collect());
        let mut starting = JoinSet::new();
        {
            let _entered = runtime.enter();
            for n in 0..NODES {
                starting.spawn(start(uri.clone(), n));
            }
        }
        let started = runtime.block_on(starting.join_all());
        for (n, (client, life, claim)) in started.into_iter().enumerate() {
            runtime.spawn(beat(client.clone(), life.clone(), Arc::clone(&heard), n));
            runtime.spawn(renew(client, life, claim, Arc::clone(&heard), NODES + n));
        }
        Some(Self { line, heard, runtime, _database: database })
    }

    /// Waits until each task has made `times` more successful calls.
    fn wait_all_succeed(&self, times: usize, what: &str) {
        let counts = || self.heard.iter().map(|c| c.load(Ordering::SeqCst)).collect::<Vec<_>>();
        let before = counts();
        wait::until(what, || counts().iter().zip(&before).all(|(now, then)| *now >= then + times).then_some(()))
            .unwrap();
    }

    /// Delays after `since` of the writes that the proxy received since then. Commands that a stall
    /// has held back are forwarded at its end, whatever the intervals of their callers, and do not
    /// count.
    fn writes(&self, since: Instant) -> Vec<Duration> {
        let forwarded = self.line.forwarded();
        let writes = forwarded.iter().filter(|write| write.received_at >= since && NODE_WRITES.contains(&write.name.as_str()));
        writes.map(|write| write.forwarded_at - since).collect()
    }
}

/// Registers a node and claims a stream.
async fn start(uri: Secret, n: usize) -> (MongoDb, NodeIncarnation, Claim) {
    let client = MongoDb::open(&uri, Timing::default()).await.unwrap();
    let text = format!(r#"{{"id": "i-{n}", "role": "origin", "addresses": [], "version": ""}}"#);
    let node: NodeDocument = serde_json::from_str(&text).unwrap();
    let life = client.register(&node, None).await.unwrap();
    let offer = StreamOffer { relay: Vec::new(), protocol: "rtmp".to_owned(), started_at_ms: 0 };
    let claim = client.claim(&life, &StreamName::new("live", &n.to_string()).unwrap(), &offer, None).await.unwrap();
    (client, life, claim)
}

/// Sends heartbeats as the daemon does.
async fn beat(client: MongoDb, life: NodeIncarnation, heard: Arc<Vec<AtomicUsize>>, at: usize) {
    let mut pace = HeartbeatInterval::new(&Timing::default());
    tokio::time::sleep(pace.initial_delay(rand::random_range(0.0..1.0))).await;
    loop {
        let answer = tokio::time::timeout(HEARTBEAT_TIMEOUT, client.heartbeat(&life, &Heartbeat::default())).await;
        let answered = matches!(answer, Ok(Ok(_)));
        heard[at].fetch_add(usize::from(answered), Ordering::SeqCst);
        tokio::time::sleep(pace.next_delay(answered, rand::random_range(0.0..1.0))).await;
    }
}

/// Renews the stream as the engine does.
async fn renew(client: MongoDb, life: NodeIncarnation, claim: Claim, heard: Arc<Vec<AtomicUsize>>, at: usize) {
    let mut pace = HeartbeatInterval::new(&Timing::default());
    tokio::time::sleep(pace.initial_delay(rand::random_range(0.0..1.0))).await;
    loop {
        let answer = client.renew(&life, std::slice::from_ref(&claim)).await;
        heard[at].fetch_add(usize::from(answer.as_ref().is_ok_and(Vec::is_empty)), Ordering::SeqCst);
        tokio::time::sleep(pace.next_delay(answer.is_ok(), rand::random_range(0.0..1.0))).await;
    }
}

/// The largest number of `times` within any 100 ms.
fn peak(mut times: Vec<Duration>) -> usize {
    times.sort_unstable();
    let within = |at: usize| times[at..].iter().take_while(|t| **t - times[at] < PEAK_WINDOW).count();
    (0..times.len()).map(within).max().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "the figures that were measured")]
fn check_recovery(name: &str, state: LinkState, most_at_once: usize) {
    let Some(scene) = SimulatedCluster::start() else { return };
    let begun = Instant::now();
    scene.wait_all_succeed(2, "two calls of every task");
    let steady = peak(scene.writes(begun));
    scene.line.set_link(state);
    let cut = Instant::now();
    wait::until("the outage to be over", || (cut.elapsed() > OUTAGE_DURATION).then_some(())).unwrap();
    let back = Instant::now();
    scene.line.set_link(LinkState::Open);
    scene.wait_all_succeed(1, "a successful call of every task after the outage");
    let all_back = back.elapsed();
    scene.wait_all_succeed(2, "two more calls of every task");
    let writes = scene.writes(back);
    let (first, later): (Vec<_>, Vec<_>) = writes.into_iter().partition(|at| *at < Duration::from_secs(1));
    let (at_once, again) = (peak(first), peak(later));
    println!(
        "{name}: {NODES} nodes, maximum of writes within 100 ms: steady {steady}, in the first second \
         {at_once}, later {again}; all nodes are back after {} ms",
        all_back.as_millis()
    );
    assert!(at_once <= most_at_once, "{at_once} of {WRITES_PER_INTERVAL} writes in the same 100 ms on return");
    // If all calls were spread evenly over an interval, 100 ms would contain one in fifty of them.
    let even = WRITES_PER_INTERVAL / 50;
    assert!(
        again <= 10 * even,
        "{again} of {WRITES_PER_INTERVAL} writes in the same 100 ms later, {even} if they were spread evenly"
    );
    assert!(all_back < Duration::from_secs(12), "{all_back:?}");
    scene.runtime.shutdown_background();
}

#[test]
fn nodes_do_not_return_all_at_once_after_an_outage() {
    // At any moment nine in twenty wait for a server, and each finds it at another time.
    check_recovery("away", LinkState::Down, WRITES_PER_INTERVAL * 2 / 5);
}

#[test]
fn nodes_do_not_stay_in_step_after_a_stall() {
    // When the stall ends, all monitors get their replies at once and all waiting calls proceed.
    check_recovery("stalled", LinkState::Stalled, WRITES_PER_INTERVAL * 3 / 5);
}

const PEAK_WINDOW: Duration = Duration::from_millis(100);
/// Commands that nodes send as writes.
const NODE_WRITES: [&str; 2] = ["update", "findAndModify"];
