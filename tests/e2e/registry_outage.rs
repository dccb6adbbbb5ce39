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
use headwater_api::documents::{Claim, StreamOffer};
use headwater_api::documents::{Heartbeat, NodeDocument, NodeIncarnation};
use headwater_api::secret::Secret;
use headwater_registry::{HeartbeatInterval, MongoDb, Nodes as _, Streams as _, Timing};
use headwater_tests::mongo::Database;
use headwater_tests::replica_set;
use headwater_tests::tapped_proxy::{LinkState, TappedProxy};
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
    proxy: TappedProxy,
    /// Number of successful calls of every task: heartbeats first, then renewals.
    successes: Arc<Vec<AtomicUsize>>,
    runtime: Runtime,
    _database: Database,
}

impl SimulatedCluster {
    fn start() -> Option<Self> {
        let database = Database::start().unwrap()?;
        let runtime = Runtime::new().unwrap();
        let (login, server) = replica_set::split_uri(database.uri()).unwrap();
        let proxy = TappedProxy::start(runtime.handle(), server).unwrap();
        let uri = Secret::new(format!("mongodb://{login}{}/?directConnection=true", proxy.address()));
        let successes: Arc<Vec<AtomicUsize>> = Arc::new((0..2 * NODES).map(|_| AtomicUsize::new(0)).collect());
        let mut starting = JoinSet::new();
        {
            let _entered = runtime.enter();
            for n in 0..NODES {
                starting.spawn(start_node(uri.clone(), n));
            }
        }
        let started = runtime.block_on(starting.join_all());
        for (n, (client, incarnation, claim)) in started.into_iter().enumerate() {
            runtime.spawn(run_heartbeats(client.clone(), incarnation.clone(), Arc::clone(&successes), n));
            runtime.spawn(run_renewals(client, incarnation, claim, Arc::clone(&successes), NODES + n));
        }
        Some(Self { proxy, successes, runtime, _database: database })
    }

    /// Waits until each task has made `times` more successful calls.
    fn wait_all_succeed(&self, times: usize, what: &str) {
        let counts = || self.successes.iter().map(|c| c.load(Ordering::SeqCst)).collect::<Vec<_>>();
        let before = counts();
        wait::until(what, || counts().iter().zip(&before).all(|(now, then)| *now >= then + times).then_some(()))
            .unwrap();
    }

    /// Delays after `since` of the writes that the proxy received since then. Commands that a stall
    /// has held back are forwarded at its end, whatever the intervals of their callers, and do not
    /// count.
    fn write_delays(&self, since: Instant) -> Vec<Duration> {
        let forwarded = self.proxy.forwarded();
        let writes =
            forwarded.iter().filter(|write| write.received_at >= since && NODE_WRITES.contains(&write.name.as_str()));
        writes.map(|write| write.forwarded_at - since).collect()
    }
}

/// Registers a node and claims a stream.
async fn start_node(uri: Secret, n: usize) -> (MongoDb, NodeIncarnation, Claim) {
    let client = MongoDb::open(&uri, Timing::default()).await.unwrap();
    let text = format!(r#"{{"id": "i-{n}", "role": "origin", "addresses": [], "version": ""}}"#);
    let node: NodeDocument = serde_json::from_str(&text).unwrap();
    let incarnation = client.register(&node, None).await.unwrap();
    let offer = StreamOffer { relay: Vec::new(), protocol: "rtmp".to_owned(), started_at_ms: 0 };
    let claim =
        client.claim(&incarnation, &StreamName::new("live", &n.to_string()).unwrap(), &offer, None).await.unwrap();
    (client, incarnation, claim)
}

/// Sends heartbeats as the daemon does.
async fn run_heartbeats(client: MongoDb, incarnation: NodeIncarnation, successes: Arc<Vec<AtomicUsize>>, at: usize) {
    let mut interval = HeartbeatInterval::new(&Timing::default());
    tokio::time::sleep(interval.initial_delay(rand::random_range(0.0..1.0))).await;
    loop {
        let result =
            tokio::time::timeout(HEARTBEAT_TIMEOUT, client.heartbeat(&incarnation, &Heartbeat::default())).await;
        let succeeded = matches!(result, Ok(Ok(_)));
        successes[at].fetch_add(usize::from(succeeded), Ordering::SeqCst);
        tokio::time::sleep(interval.next_delay(succeeded, rand::random_range(0.0..1.0))).await;
    }
}

/// Renews the stream as the engine does.
async fn run_renewals(
    client: MongoDb,
    incarnation: NodeIncarnation,
    claim: Claim,
    successes: Arc<Vec<AtomicUsize>>,
    at: usize,
) {
    let mut interval = HeartbeatInterval::new(&Timing::default());
    tokio::time::sleep(interval.initial_delay(rand::random_range(0.0..1.0))).await;
    loop {
        let result = client.renew(&incarnation, std::slice::from_ref(&claim)).await;
        successes[at].fetch_add(usize::from(result.as_ref().is_ok_and(Vec::is_empty)), Ordering::SeqCst);
        tokio::time::sleep(interval.next_delay(result.is_ok(), rand::random_range(0.0..1.0))).await;
    }
}

/// The largest number of `times` within any 100 ms.
fn max_in_window(mut times: Vec<Duration>) -> usize {
    times.sort_unstable();
    let within = |at: usize| times[at..].iter().take_while(|t| **t - times[at] < PEAK_WINDOW).count();
    (0..times.len()).map(within).max().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "the figures that were measured")]
fn check_recovery(name: &str, state: LinkState, most_at_once: usize) {
    let Some(cluster) = SimulatedCluster::start() else { return };
    let started = Instant::now();
    cluster.wait_all_succeed(2, "two calls of every task");
    let steady = max_in_window(cluster.write_delays(started));
    cluster.proxy.set_link(state);
    let cut = Instant::now();
    wait::until("the outage to be over", || (cut.elapsed() > OUTAGE_DURATION).then_some(())).unwrap();
    let restored = Instant::now();
    cluster.proxy.set_link(LinkState::Open);
    cluster.wait_all_succeed(1, "a successful call of every task after the outage");
    let all_back = restored.elapsed();
    cluster.wait_all_succeed(2, "two more calls of every task");
    let writes = cluster.write_delays(restored);
    let (first, later): (Vec<_>, Vec<_>) = writes.into_iter().partition(|at| *at < Duration::from_secs(1));
    let (at_once, again) = (max_in_window(first), max_in_window(later));
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
    cluster.runtime.shutdown_background();
}

#[test]
fn nodes_do_not_return_all_at_once_after_an_outage() {
    // At any moment nine in twenty wait for a server, and each finds it at another time.
    check_recovery("outage", LinkState::Down, WRITES_PER_INTERVAL * 2 / 5);
}

#[test]
fn nodes_do_not_stay_in_step_after_a_stall() {
    // When the stall ends, all monitors get their replies at once and all waiting calls proceed.
    check_recovery("stall", LinkState::Stalled, WRITES_PER_INTERVAL * 3 / 5);
}

const PEAK_WINDOW: Duration = Duration::from_millis(100);
/// Commands that nodes send as writes.
const NODE_WRITES: [&str; 2] = ["update", "findAndModify"];
