//! A cluster node in a warm pool of Auto Scaling: into the pool, into service, and back into the
//! pool on scale-in, with a fake of the service and a real database.

use std::net::TcpListener;

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
        // Without this secret every boot logs a warning, and this test expects none.
        cluster::add_administrator_secret(&aws).unwrap();
        let groups = FakeAutoScaling::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let runtime = Runtime::new().unwrap();
        let registry = runtime.block_on(MongoDb::open(&Secret::new(database.uri()), Timing::default())).unwrap();
        Some(Self { groups, aws, runtime, registry, _database: database })
    }

    /// Waits until a hook is completed and the instance is in this lifecycle state.
    fn wait(&self, wanted: Lifecycle, what: &str) {
        let look = |i: &headwater_tests::autoscaling::Instance| (i.lifecycle == wanted && i.completed).then_some(());
        self.groups.wait(ID, WAIT_TIMEOUT, what, look).unwrap();
    }

    fn registered(&self) -> Vec<String> {
        let nodes = self.runtime.block_on(self.registry.nodes()).unwrap();
        nodes.into_iter().map(|node| node.node.id).collect()
    }

    /// Waits until the node has moved from the pool into service, and checks that it serves.
    fn serves(&self, node: &Node) {
        self.wait(Lifecycle::InService, "the launching hook to be passed");
        assert_eq!(http::get(node.health().unwrap(), "/readyz").unwrap().status, 200);
        assert_eq!(self.registered(), [ID]);
    }

    /// Scales in and checks that the node returns cleanly from service to the pool.
    fn returns(&self, node: &Node) {
        assert_eq!(self.groups.scale_in("edge").as_deref(), Some(ID));
        let start = node.daemon.process().line_count();
        self.wait(Lifecycle::Warmed, "the terminating hook to be passed");
        // The node had drained and deregistered before it completed the hook.
        assert_eq!(self.registered(), Vec::<String>::new());
        assert!(!node.daemon.data_dir().join("engine.json").exists(), "the hook was completed while the engine still served");
        let lines = node.daemon.process().lines_from(start);
        assert!(!lines.iter().any(|l| l.contains("WARN") || l.contains("ERROR")), "{lines:#?}");
    }
}

#[test]
fn node_of_a_running_pool_is_registered_only_while_in_service() {
    let Some(scene) = WarmPool::new() else { return };
    let node = Node::start_in_pool(&scene.aws, &scene.groups, ID, "edge", "Running").unwrap();
    scene.wait(Lifecycle::Warmed, "the launching hook to be passed, into the pool");
    assert!(!node.daemon.data_dir().exists(), "the node was started in the pool");
    assert_eq!(scene.registered(), Vec::<String>::new());
    for _ in 0..2 {
        let start = node.daemon.process().line_count();
        assert_eq!(scene.groups.scale_out("edge").as_deref(), Some(ID));
        node.daemon.process().wait_line_from(start, "node ready").unwrap();
        scene.serves(&node);
        scene.returns(&node);
        // The same process waits in the pool.
        node.daemon.process().wait_line_from(start, "Auto Scaling keeps this instance warm").unwrap();
        assert!(node.daemon.process().is_running());
    }
}

#[test]
fn instance_of_a_stopped_pool_serves_each_time_it_is_started() {
    let Some(scene) = WarmPool::new() else { return };
    let mut node = Node::start_in_pool(&scene.aws, &scene.groups, ID, "edge", "Stopped").unwrap();
    scene.wait(Lifecycle::Warmed, "the launching hook to be passed, into the pool");
    for _ in 0..2 {
        assert_eq!(scene.groups.scale_out("edge").as_deref(), Some(ID));
        node = node.restart(&scene.aws, &scene.groups).unwrap();
        node.wait_ready().unwrap();
        scene.serves(&node);
        scene.returns(&node);
    }
}

#[test]
fn node_scaled_out_while_returning_to_the_pool_serves_again() {
    let Some(scene) = WarmPool::new() else { return };
    let node = Node::start_in_pool(&scene.aws, &scene.groups, ID, "edge", "Hibernated").unwrap();
    scene.wait(Lifecycle::Warmed, "the launching hook to be passed, into the pool");
    scene.groups.scale_out("edge").unwrap();
    scene.serves(&node);
    let start = node.daemon.process().line_count();
    scene.groups.scale_in("edge").unwrap();
    scene.wait(Lifecycle::Warmed, "the terminating hook to be passed");
    scene.groups.scale_out("edge").unwrap();
    node.daemon.process().wait_line_from(start, "node ready").unwrap();
    wait::until("its registry entry", || (scene.registered() == [ID]).then_some(())).unwrap();
    scene.wait(Lifecycle::InService, "the launching hook to be passed");
}
