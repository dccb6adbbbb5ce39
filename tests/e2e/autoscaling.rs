//! A node in an Auto Scaling group, from the launching hook to the terminating hook, against a fake
//! of the service.

use std::net::TcpListener;
use std::sync::Arc;

use headwater_tests::autoscaling::{FakeAutoScaling, Instance, Lifecycle};
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Options, wait_status};
use headwater_tests::http;
use headwater_tests::metadata::FakeMetadata;
use headwater_tests::publish::{Source, start_ffmpeg};
use headwater_tests::wait::WAIT_TIMEOUT;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ID: &str = "i-0fake";

/// A group with one instance, and the metadata of the instance.
struct TestGroup {
    scaling: FakeAutoScaling,
    metadata: Arc<FakeMetadata>,
}

impl TestGroup {
    /// Launches the instance into service.
    fn new() -> Self {
        Self::with_instance(|scaling, tell| scaling.launch(ID, "nodes", tell))
    }

    /// Launches the instance into the warm pool.
    fn in_pool(pool: &'static str) -> Self {
        Self::with_instance(|scaling, tell| scaling.launch_warm(ID, "nodes", pool, tell))
    }

    fn with_instance(launch: impl FnOnce(&FakeAutoScaling, Box<dyn Fn(&str) + Send + Sync>)) -> Self {
        let metadata =
            FakeMetadata::start(&[("headwater:role", "standalone"), ("aws:autoscaling:groupName", "nodes")]).unwrap();
        metadata.change(|s| s.id = ID.to_owned());
        let metadata = Arc::new(metadata);
        let scaling = FakeAutoScaling::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let weak_metadata = Arc::downgrade(&metadata);
        let tell = move |target: &str| {
            if let Some(metadata) = weak_metadata.upgrade() {
                metadata.change(|s| s.target_lifecycle_state = Some(target.to_owned()));
            }
        };
        launch(&scaling, Box::new(tell));
        Self { scaling, metadata }
    }

    fn start_node(&self, change: impl FnOnce(&mut headwater_api::Config)) -> Daemon {
        let mut options = Options::with(change);
        options.config.metadata.endpoint = self.metadata.address();
        options.environment = self.scaling.environment();
        Daemon::start(options).unwrap()
    }

    fn wait_instance(&self, what: &str, is_reached: impl Fn(&Instance) -> bool) {
        self.scaling.wait(ID, WAIT_TIMEOUT, what, |instance| is_reached(instance).then_some(())).unwrap();
    }

    /// Waits until the terminating hook is completed, not timed out.
    fn wait_terminated(&self) {
        self.wait_instance("completion of the terminating hook", |i| {
            i.lifecycle == Lifecycle::Terminated && i.completed
        });
    }

    fn lifecycle(&self) -> Lifecycle {
        self.scaling.wait(ID, WAIT_TIMEOUT, "the instance", |instance| Some(instance.lifecycle)).unwrap()
    }

    fn terminate(&self) {
        self.scaling.terminate(ID).unwrap();
    }
}

#[test]
fn launching_hook_is_completed_once_the_node_is_ready() {
    let group = TestGroup::new();
    let node = group.start_node(|_| {});
    group.wait_instance("completion of the launching hook", |i| i.lifecycle == Lifecycle::InService);
    let at = node.wait_endpoints(None).unwrap();
    assert_eq!(http::get(at.health, "/readyz").unwrap().status, 200);
    // Both lines are logged eventually; their order counts.
    node.process().wait_line("lifecycle hook completed").unwrap();
    node.process().wait_line("node ready").unwrap();
    let lines = node.process().lines();
    let at = |needle: &str| lines.iter().position(|line| line.contains(needle)).unwrap();
    assert!(at("node ready") < at("lifecycle hook completed"), "the hook was completed before the node was ready");
}

#[test]
fn node_that_never_becomes_ready_never_completes_the_launching_hook() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let group = TestGroup::new();
    let node = group.start_node(|c| c.rtmp.listen = address.into());
    assert_eq!(node.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(69));
    assert_eq!((group.lifecycle(), group.scaling.actions()), (Lifecycle::PendingWait, Vec::<String>::new()));
}

#[test]
fn terminating_hook_is_completed_only_after_the_drain() {
    let group = TestGroup::new();
    let node = group.start_node(|_| {});
    group.wait_instance("completion of the launching hook", |i| i.lifecycle == Lifecycle::InService);
    // A stopped engine has not drained.
    let engine = nix::unistd::Pid::from_raw(node.wait_endpoints(None).unwrap().pid.try_into().unwrap());
    nix::sys::signal::kill(engine, nix::sys::signal::Signal::SIGSTOP).unwrap();
    group.terminate();
    group.wait_instance("the drain", |i| i.heartbeats >= 1);
    assert_eq!(group.lifecycle(), Lifecycle::TerminatingWait);
    nix::sys::signal::kill(engine, nix::sys::signal::Signal::SIGCONT).unwrap();
    group.wait_terminated();
    assert!(!node.data_dir().join("engine.json").exists(), "the hook was completed while the engine still served");
    assert_eq!(node.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
}

#[test]
fn long_drain_is_covered_by_heartbeats() {
    let group = TestGroup::new();
    let node = group.start_node(|c| c.node.drain_ms = 60_000.try_into().unwrap());
    group.wait_instance("completion of the launching hook", |i| i.lifecycle == Lifecycle::InService);
    // A stopped engine drains until the drain deadline.
    let engine = Pid::from_raw(node.wait_endpoints(None).unwrap().pid.try_into().unwrap());
    kill(engine, Signal::SIGSTOP).unwrap();
    group.terminate();
    group.wait_instance("two heartbeats", |i| i.heartbeats >= 2);
    assert_eq!(group.lifecycle(), Lifecycle::TerminatingWait);
    kill(engine, Signal::SIGCONT).unwrap();
    group.wait_terminated();
}

/// Starts a node that Auto Scaling drains and whose engine is stopped and does not react.
fn start_stalled_drain(group: &TestGroup) -> (Daemon, Pid) {
    let node = group.start_node(|c| c.node.drain_ms = 60_000.try_into().unwrap());
    group.wait_instance("completion of the launching hook", |i| i.lifecycle == Lifecycle::InService);
    let engine = Pid::from_raw(node.wait_endpoints(None).unwrap().pid.try_into().unwrap());
    kill(engine, Signal::SIGSTOP).unwrap();
    group.terminate();
    group.wait_instance("the drain", |i| i.heartbeats >= 1);
    (node, engine)
}

#[test]
fn sigterm_during_an_auto_scaling_drain_does_not_shorten_it() {
    let group = TestGroup::new();
    let (node, engine) = start_stalled_drain(&group);
    node.process().signal(Signal::SIGTERM);
    node.process().wait_line("already draining; a second signal stops at once").unwrap();
    assert_eq!(group.lifecycle(), Lifecycle::TerminatingWait);
    // The drain was not cut short: the engine completes it.
    kill(engine, Signal::SIGCONT).unwrap();
    group.wait_terminated();
    assert_eq!(node.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    let lines = node.process().lines();
    assert!(!lines.iter().any(|line| line.contains("killing the engine")), "{lines:#?}");
}

#[test]
fn second_sigterm_during_an_auto_scaling_drain_stops_it_and_completes_the_hook() {
    let group = TestGroup::new();
    let (node, _engine) = start_stalled_drain(&group);
    node.process().signal(Signal::SIGTERM);
    node.process().wait_line("already draining; a second signal stops at once").unwrap();
    node.process().signal(Signal::SIGTERM);
    assert_eq!(node.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    group.wait_terminated();
}

#[test]
fn failed_requests_for_both_hooks_are_retried() {
    let group = TestGroup::new();
    group.scaling.fail_requests(4); // one more than the SDK's own attempts
    let node = group.start_node(|_| {});
    node.process().wait_line("Auto Scaling request failed, retrying").unwrap();
    group.wait_instance("completion of the launching hook", |i| i.lifecycle == Lifecycle::InService);
    group.scaling.fail_requests(8); // enough that completing the hook after the drain also fails
    group.terminate();
    group.wait_terminated();
}

/// The URL of `live/a` with the key that a node on EC2 requires.
fn publish_url(node: &Daemon) -> String {
    let rtmp = node.wait_endpoints(None).unwrap().rtmp.unwrap();
    format!("rtmp://{rtmp}/live/a?key={}", node.publish_key("live").unwrap())
}

#[test]
fn restarted_node_without_a_publisher_loses_its_scale_in_protection() {
    let group = TestGroup::new();
    let node = group.start_node(|_| {});
    let Some(publisher) = start_ffmpeg(&Source::default(), &publish_url(&node)).unwrap() else {
        return;
    };
    group.wait_instance("protection", |i| i.protected);
    // A killed node cannot remove its protection, and its publisher has left.
    drop((node, publisher));
    assert!(group.scaling.wait(ID, WAIT_TIMEOUT, "the instance", |i| Some(i.protected)).unwrap());
    let _node = group.start_node(|_| {});
    group.wait_instance("the end of protection", |i| !i.protected);
}

#[test]
fn terminating_hook_is_completed_for_an_instance_in_the_warm_pool() {
    let group = TestGroup::in_pool("Running");
    let node = group.start_node(|_| {});
    group.wait_instance("the warm pool", |i| i.lifecycle == Lifecycle::Warmed && i.completed);
    group.terminate();
    group.wait_terminated();
    assert!(!node.data_dir().exists() && node.process().is_running());
}

#[test]
fn failed_request_to_enter_the_warm_pool_is_retried() {
    let group = TestGroup::in_pool("Running");
    group.scaling.fail_requests(4); // one more than the SDK tries by itself
    let node = group.start_node(|_| {});
    node.process().wait_line("Auto Scaling request failed, retrying").unwrap();
    group.wait_instance("the warm pool", |i| i.lifecycle == Lifecycle::Warmed && i.completed);
}

#[test]
fn sigterm_during_the_return_to_the_warm_pool_stops_the_daemon() {
    let group = TestGroup::in_pool("Running");
    let node = group.start_node(|c| c.node.drain_ms = 60_000.try_into().unwrap());
    group.wait_instance("the warm pool", |i| i.lifecycle == Lifecycle::Warmed);
    group.scaling.scale_out("nodes").unwrap();
    group.wait_instance("completion of the launching hook", |i| i.lifecycle == Lifecycle::InService);
    let engine = Pid::from_raw(node.wait_endpoints(None).unwrap().pid.try_into().unwrap());
    kill(engine, Signal::SIGSTOP).unwrap();
    group.scaling.scale_in("nodes").unwrap();
    group.wait_instance("the drain", |i| i.heartbeats >= 1);
    node.process().signal(Signal::SIGTERM);
    node.process().wait_line("already draining; a second signal stops at once").unwrap();
    kill(engine, Signal::SIGCONT).unwrap();
    group.wait_instance("the warm pool", |i| i.lifecycle == Lifecycle::Warmed && i.completed);
    assert_eq!(node.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
}

#[test]
fn node_is_protected_from_scale_in_while_a_stream_is_published() {
    let group = TestGroup::new();
    let node = group.start_node(|_| {});
    let at = node.wait_endpoints(None).unwrap();
    group.wait_instance("completion of the launching hook", |i| i.lifecycle == Lifecycle::InService);
    let Some(publisher) = start_ffmpeg(&Source::default(), &publish_url(&node)).unwrap() else {
        return;
    };
    wait_status(at.http.unwrap(), "live/a", "video", |s| s.video.is_some()).unwrap();
    group.wait_instance("protection", |i| i.protected);
    drop(publisher);
    group.wait_instance("the end of protection", |i| !i.protected);
}
