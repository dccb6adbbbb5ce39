//! A node in an Auto Scaling group, from the launching hook to the terminating one, against a fake of the service.

use headwater_tests::autoscaling::{self, Lifecycle};
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Options, wait_status};
use headwater_tests::http;
use headwater_tests::metadata::Fake;
use headwater_tests::publish::{Source, ffmpeg};
use headwater_tests::wait::PATIENCE;

struct Group {
    scaling: autoscaling::Fake,
    metadata: Fake,
}

impl Group {
    fn new() -> Self {
        let metadata =
            Fake::start(&[("headwater:role", "standalone"), ("aws:autoscaling:groupName", "nodes")]).unwrap();
        metadata.change(|s| s.target_lifecycle_state = Some("InService".to_owned()));
        Self { scaling: autoscaling::Fake::start().unwrap(), metadata }
    }

    fn node(&self, change: impl FnOnce(&mut headwater_api::Config)) -> Daemon {
        let mut options = Options::with(change);
        options.config.metadata.endpoint = self.metadata.address();
        options.environment = self.scaling.environment();
        Daemon::start(options).unwrap()
    }

    /// What Auto Scaling does when it scales in.
    fn terminate(&self) {
        self.scaling.change(|s| s.lifecycle = Lifecycle::TerminatingWait);
        self.metadata.change(|s| s.target_lifecycle_state = Some("Terminated".to_owned()));
    }
}

#[test]
fn the_launching_hook_is_passed_once_the_node_is_ready() {
    let group = Group::new();
    let node = group.node(|_| {});
    group.scaling.wait("the launching hook to be passed", |s| s.lifecycle == Lifecycle::InService).unwrap();
    let at = node.endpoints(None).unwrap();
    assert_eq!(http::get(at.health, "/readyz").unwrap().status, 200);
}

#[test]
fn a_node_that_never_gets_ready_never_passes_the_launching_hook() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let group = Group::new();
    let node = group.node(|c| c.rtmp.listen = address);
    assert_eq!(node.process().exit(PATIENCE).unwrap().code(), Some(69));
    let state = group.scaling.state();
    assert_eq!((state.lifecycle, state.actions), (Lifecycle::PendingWait, Vec::<String>::new()));
}

#[test]
fn the_terminating_hook_is_held_while_the_node_drains_and_passed_when_it_has() {
    let group = Group::new();
    let node = group.node(|_| {});
    group.scaling.wait("the launching hook to be passed", |s| s.lifecycle == Lifecycle::InService).unwrap();
    group.terminate();
    let state =
        group.scaling.wait("the terminating hook to be passed", |s| s.lifecycle == Lifecycle::Terminated).unwrap();
    assert!(!node.data_dir().join("engine.json").exists(), "passed while the engine still served");
    assert!(state.actions.iter().any(|a| a == "CompleteLifecycleAction"));
    assert_eq!(node.process().exit(PATIENCE).unwrap().code(), Some(0));
}

#[test]
fn a_long_drain_is_covered_by_heartbeats() {
    let group = Group::new();
    let node = group.node(|c| c.node.drain_ms = 60_000.try_into().unwrap());
    group.scaling.wait("the launching hook to be passed", |s| s.lifecycle == Lifecycle::InService).unwrap();
    // An engine that stands still drains for as long as it may.
    let engine = nix::unistd::Pid::from_raw(node.endpoints(None).unwrap().pid.try_into().unwrap());
    nix::sys::signal::kill(engine, nix::sys::signal::Signal::SIGSTOP).unwrap();
    group.terminate();
    let state = group.scaling.wait("two heartbeats", |s| s.heartbeats >= 2).unwrap();
    assert_eq!(state.lifecycle, Lifecycle::TerminatingWait);
    nix::sys::signal::kill(engine, nix::sys::signal::Signal::SIGCONT).unwrap();
    group.scaling.wait("the terminating hook to be passed", |s| s.lifecycle == Lifecycle::Terminated).unwrap();
}

#[test]
fn a_service_that_refuses_is_asked_again_at_both_ends() {
    let group = Group::new();
    group.scaling.change(|s| s.refusals = 4); // one more than the SDK tries by itself
    let node = group.node(|_| {});
    node.process().line("Auto Scaling refused, trying again").unwrap();
    group.scaling.wait("the launching hook to be passed", |s| s.lifecycle == Lifecycle::InService).unwrap();
    group.scaling.change(|s| s.refusals = 4);
    group.terminate();
    group.scaling.wait("the terminating hook to be passed", |s| s.lifecycle == Lifecycle::Terminated).unwrap();
}

#[test]
fn a_node_is_protected_from_scale_in_while_somebody_publishes() {
    let group = Group::new();
    let node = group.node(|_| {});
    let at = node.endpoints(None).unwrap();
    group.scaling.wait("the launching hook to be passed", |s| s.lifecycle == Lifecycle::InService).unwrap();
    let Some(publisher) = ffmpeg(&Source::default(), &format!("rtmp://{}/live/a", at.rtmp)).unwrap() else { return };
    wait_status(at.http, "live/a", "pictures", |s| s.video.is_some()).unwrap();
    group.scaling.wait("protection", |s| s.protected).unwrap();
    drop(publisher);
    group.scaling.wait("the end of protection", |s| !s.protected).unwrap();
}
