//! A cluster node in a warm pool of Auto Scaling: into the pool, into service, and back into the
//! pool on scale-in, with a fake of the service and a real database.

use std::net::TcpListener;
use std::path::Path;

use headwater_api::secret::Secret;
use headwater_registry::{MongoDb, Nodes as _, Timing};
use headwater_tests::autoscaling::{FakeAutoScaling, Lifecycle};
use headwater_tests::cluster::{self, Node};
use headwater_tests::http;
use headwater_tests::mongo::Database;
use headwater_tests::moto::Moto;
use headwater_tests::wait::{self, WAIT_TIMEOUT};
use tokio::runtime::Runtime;

const ID: &str = "i-0warm";

/// Warnings about a stop that is not clean. Other warnings, such as a heartbeat that the registry
/// does not answer in time, are harmless on a busy machine.
const UNCLEAN_STOP_WARNINGS: &[&str] = &[
    "could not complete the terminating hook in time",
    "could not deregister this node",
    "deregistering this node timed out",
    "drain deadline exceeded",
    "engine exited unexpectedly",
    "killing the engine",
];

/// Auto Scaling, AWS and the registry of a cluster.
struct WarmPool {
    groups: FakeAutoScaling,
    aws: Moto,
    runtime: Runtime,
    registry: MongoDb,
    _database: Database,
}

impl WarmPool {
    fn new() -> Option<Self> {
        let database = Database::start().unwrap()?;
        let aws = cluster::start_aws(database.uri()).unwrap()?;
        cluster::add_administrator_secret(&aws).unwrap();
        let groups = FakeAutoScaling::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let runtime = Runtime::new().unwrap();
        let registry = runtime.block_on(MongoDb::open(&Secret::new(database.uri()), Timing::default())).unwrap();
        Some(Self { groups, aws, runtime, registry, _database: database })
    }

    /// Waits until a hook is completed and the instance is in this lifecycle state.
    fn wait_lifecycle(&self, target: Lifecycle, what: &str) {
        let is_reached =
            |i: &headwater_tests::autoscaling::Instance| (i.lifecycle == target && i.completed).then_some(());
        self.groups.wait(ID, WAIT_TIMEOUT, what, is_reached).unwrap();
    }

    fn registered(&self) -> Vec<String> {
        let nodes = self.runtime.block_on(self.registry.nodes()).unwrap();
        nodes.into_iter().map(|node| node.node.id).collect()
    }

    /// Waits until the node has moved from the pool into service, and checks that it serves.
    fn check_in_service(&self, node: &Node) {
        self.wait_lifecycle(Lifecycle::InService, "completion of the launching hook");
        let health = node.health().unwrap();
        let is_ready = || http::get(health, "/readyz").is_ok_and(|response| response.status == 200).then_some(());
        wait::until("readiness", is_ready).unwrap();
        assert_eq!(self.registered(), [ID]);
    }

    /// Scales in and checks that the node returns cleanly from service to the pool.
    fn check_returns_to_pool(&self, node: &Node) {
        assert_eq!(self.groups.scale_in("edge").as_deref(), Some(ID));
        let start = node.daemon.process().line_count();
        self.wait_lifecycle(Lifecycle::Warmed, "completion of the terminating hook");
        // The node had drained and deregistered before it completed the hook.
        assert_eq!(self.registered(), Vec::<String>::new());
        assert!(
            !node.daemon.data_dir().join("engine.json").exists(),
            "the hook was completed while the engine still served"
        );
        let lines = node.daemon.process().lines_from(start);
        let is_unclean = |line: &&String| {
            line.contains("ERROR") || UNCLEAN_STOP_WARNINGS.iter().any(|warning| line.contains(warning))
        };
        assert_eq!(lines.iter().find(is_unclean), None, "{lines:#?}");
    }
}

#[test]
fn node_of_a_running_pool_is_registered_only_while_in_service() {
    let Some(warm_pool) = WarmPool::new() else { return };
    let node = Node::start_in_pool(&warm_pool.aws, &warm_pool.groups, ID, "edge", "Running").unwrap();
    warm_pool.wait_lifecycle(Lifecycle::Warmed, "completion of the launching hook, into the pool");
    assert!(!node.daemon.data_dir().exists(), "the node was started in the pool");
    assert_eq!(warm_pool.registered(), Vec::<String>::new());
    for _ in 0..2 {
        let start = node.daemon.process().line_count();
        assert_eq!(warm_pool.groups.scale_out("edge").as_deref(), Some(ID));
        node.daemon.process().wait_line_from(start, "node ready").unwrap();
        warm_pool.check_in_service(&node);
        warm_pool.check_returns_to_pool(&node);
        // The same process waits in the pool.
        node.daemon.process().wait_line_from(start, "Auto Scaling keeps this instance warm").unwrap();
        assert!(node.daemon.process().is_running());
    }
}

#[test]
fn instance_of_a_stopped_pool_serves_each_time_it_is_started() {
    let Some(warm_pool) = WarmPool::new() else { return };
    let mut node = Node::start_in_pool(&warm_pool.aws, &warm_pool.groups, ID, "edge", "Stopped").unwrap();
    warm_pool.wait_lifecycle(Lifecycle::Warmed, "completion of the launching hook, into the pool");
    for _ in 0..2 {
        assert_eq!(warm_pool.groups.scale_out("edge").as_deref(), Some(ID));
        node = node.restart(&warm_pool.aws, &warm_pool.groups).unwrap();
        node.wait_ready().unwrap();
        warm_pool.check_in_service(&node);
        warm_pool.check_returns_to_pool(&node);
    }
}

#[test]
fn node_scaled_out_while_returning_to_the_pool_serves_again() {
    let Some(warm_pool) = WarmPool::new() else { return };
    let node = Node::start_in_pool(&warm_pool.aws, &warm_pool.groups, ID, "edge", "Hibernated").unwrap();
    warm_pool.wait_lifecycle(Lifecycle::Warmed, "completion of the launching hook, into the pool");
    warm_pool.groups.scale_out("edge").unwrap();
    warm_pool.check_in_service(&node);
    let start = node.daemon.process().line_count();
    warm_pool.groups.scale_in("edge").unwrap();
    warm_pool.wait_lifecycle(Lifecycle::Warmed, "completion of the terminating hook");
    warm_pool.groups.scale_out("edge").unwrap();
    node.daemon.process().wait_line_from(start, "node ready").unwrap();
    wait::until("its registry entry", || (warm_pool.registered() == [ID]).then_some(())).unwrap();
    warm_pool.wait_lifecycle(Lifecycle::InService, "completion of the launching hook");
}

/// Appends the text of all Rust sources below `folder`.
fn read_sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn warnings_about_an_unclean_stop_have_the_words_that_the_tests_search_for() {
    let (root, mut sources) = (Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap(), String::new());
    for folder in ["daemon/src", "media/engine/src"] {
        read_sources(&root.join(folder), &mut sources);
    }
    for warning in UNCLEAN_STOP_WARNINGS {
        assert!(sources.contains(&format!("\"{warning}")), "no source logs {warning:?}");
    }
}
