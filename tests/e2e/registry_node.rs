//! Nodes that run the registry of their cluster: from tags and secrets to a replica set that the
//! other nodes use, and its shutdown.
//!
//! Each case runs with a stand-in for mongod (`tests/mongod`, on FerretDB), and with a real one if
//! `HEADWATER_TEST_MONGOD` names it. All nodes are on loopback, each with its own address.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_tests::autoscaling::{FakeAutoScaling, Instance, Lifecycle};
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Options, program_path};
use headwater_tests::metadata::FakeMetadata;
use headwater_tests::mongo::Database;
use headwater_tests::moto::Moto;
use headwater_tests::temp::TempDir;
use headwater_tests::wait::{self, WAIT_TIMEOUT};
use headwater_tests::{http, tools};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::readiness::wait_failing_check;

/// Secret with the registry's user, whose name differs from that of FerretDB's own user.
const REGISTRY_SECRET: &str = r#"{"username": "nodes", "password": "hunter2-of-the-registry"}"#;
const RELAY_SECRET: &str = "hunter2-of-the-relay";
/// Interval between two requests of the daemon to Auto Scaling.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
const REGISTRY_NODE_TAGS: [(&str, &str); 2] = [("headwater:role", "registry"), ("headwater:cluster", "demo")];

/// The AWS of a cluster, and the mongod that its registry nodes run.
struct TestCloud {
    moto: Moto,
    subnet: String,
    port: u16,
    mongod: PathBuf,
    folder: TempDir,
    /// Database behind the stand-in for mongod.
    database: Option<Database>,
}

/// Runs a case with the stand-in and, if there is one, with a real mongod.
fn with_each_mongod(case: impl Fn(TestCloud)) {
    if let Some(database) = Database::start().unwrap()
        && let Some(cloud) = TestCloud::start(program_path("headwater-mongod-stand-in").unwrap(), Some(database))
    {
        case(cloud);
    }
    match tools::real_mongod_path() {
        Some(mongod) => case(TestCloud::start(mongod, None).unwrap()),
        None => tools::skip_case("no real mongod: HEADWATER_TEST_MONGOD is not set"),
    }
}

impl TestCloud {
    fn start(mongod: PathBuf, database: Option<Database>) -> Option<Self> {
        let moto = Moto::start().unwrap()?;
        let subnet = moto.create_subnet("127.0.0.0/24").unwrap();
        // mongod needs a port number. This one was free a moment ago.
        let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        Some(Self { moto, subnet, port, mongod, folder: TempDir::new().unwrap(), database })
    }

    fn with_secrets(self) -> Self {
        self.moto.create_secret("headwater/demo/relay", RELAY_SECRET).unwrap();
        self.moto.create_secret("headwater/demo/registry", REGISTRY_SECRET).unwrap();
        self
    }

    fn options(&self, metadata: &FakeMetadata) -> Options {
        let mut options = Options::with(|c| {
            c.metadata.endpoint = metadata.address();
            c.mongod.port = self.port.try_into().unwrap();
            c.mongod.program.clone_from(&self.mongod);
            c.relay.listen = "127.0.0.1:0".parse().unwrap();
        });
        options.environment = self.moto.environment();
        if let Some(database) = &self.database {
            options.environment.push(("STAND_IN_DATABASE", database.uri().to_owned()));
            let users = self.folder.path().join("users.bson");
            options.environment.push(("STAND_IN_USERS", users.to_string_lossy().into_owned()));
        }
        options
    }

    /// Starts a registry node at this address, as EC2 does.
    fn start_node(&self, address: &str) -> RegistryNode {
        let id = self.moto.run_instance_at(&self.subnet, address, &REGISTRY_NODE_TAGS).unwrap();
        let metadata = start_metadata(&id, address, &REGISTRY_NODE_TAGS);
        let folder = TempDir::new().unwrap();
        let daemon = Daemon::start_in(self.options(&metadata), folder.path()).unwrap();
        RegistryNode { id, daemon, metadata, folder }
    }
}

fn start_metadata(id: &str, address: &str, tags: &[(&str, &str)]) -> FakeMetadata {
    let metadata = FakeMetadata::start(tags).unwrap();
    metadata.change(|s| (s.id, s.local_ipv4) = (id.to_owned(), address.to_owned()));
    metadata
}

struct RegistryNode {
    id: String,
    daemon: Daemon,
    metadata: FakeMetadata,
    folder: TempDir,
}

impl RegistryNode {
    fn wait_line(&self, needle: &str) -> String {
        self.daemon.process().wait_line(needle).unwrap()
    }

    /// Runs `headwaterd ARGUMENTS` with the configuration of the node.
    fn run_command(&self, cloud: &TestCloud, arguments: &[&str]) -> (bool, String) {
        run_command(self.folder.path(), cloud, arguments)
    }

    /// Id and readiness of the registry nodes, according to the registry.
    fn registry_nodes(&self, cloud: &TestCloud) -> Vec<(String, bool)> {
        let (_, text) = self.run_command(cloud, &["nodes", "--json"]);
        let nodes: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
        let members = nodes.iter().filter(|node| node["role"] == "registry" && node["inTheCluster"] == true);
        members.map(|node| (node["id"].as_str().unwrap().to_owned(), node["ready"] == true)).collect()
    }

    fn wait_ready_nodes(&self, cloud: &TestCloud, ready: &[&RegistryNode]) {
        let mut expected: Vec<_> = ready.iter().map(|node| (node.id.clone(), true)).collect();
        expected.sort();
        let mut last = Vec::new();
        let found = wait::until("the registry nodes to be ready", || {
            last = self.registry_nodes(cloud);
            (last == expected).then_some(())
        });
        assert!(found.is_ok(), "{last:?} and not {expected:?}");
    }

    /// Address of its health listener.
    fn health(&self) -> SocketAddr {
        let line = self.wait_line("health listener open");
        let (_, address) = line.split_once("health=").unwrap();
        address.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Process id of the most recently started mongod.
    fn mongod_pid(&self) -> Pid {
        mongod_pid(&self.daemon)
    }

    fn stop(&self) {
        self.daemon.process().signal(Signal::SIGTERM);
        assert_eq!(self.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
        let lines = self.daemon.process().lines();
        let last = lines.iter().rfind(|line| line.contains("mongod process exited")).unwrap();
        assert!(last.contains("exit status: 0"), "{last}");
    }
}

fn mongod_pid(daemon: &Daemon) -> Pid {
    let line = daemon.process().lines().into_iter().rfind(|line| line.contains("mongod started")).unwrap();
    let (_, pid) = line.split_once("pid=").unwrap();
    Pid::from_raw(pid.split_whitespace().next().unwrap().parse().unwrap())
}

fn run_command(folder: &Path, cloud: &TestCloud, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program_path("headwaterd").unwrap())
        .args(arguments)
        .arg("--config")
        .arg(folder.join("node.toml"))
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(cloud.moto.environment())
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn registry_node_provides_the_registry_of_its_cluster() {
    with_each_mongod(|cloud| {
        let node = cloud.start_node("127.0.0.2");
        let line = node.wait_line("out of service");
        assert!(line.contains("secretsmanager:GetSecretValue of headwater/demo/relay did not work"), "{line}");
        assert_eq!(http::get(node.health(), "/livez").unwrap().status, 200);
        let readiness = http::get(node.health(), "/readyz").unwrap();
        let reason = readiness.json::<Value>().unwrap()["checks"]["secrets"].as_str().unwrap().to_owned();
        assert!(readiness.status == 503 && reason.contains("headwater/demo/relay did not work"), "{reason}");
        let cloud = cloud.with_secrets();
        for step in
            ["mongod started", "replica set initiated", "user that manages the replica set created", "node ready"]
        {
            node.wait_line(step);
        }
        node.wait_ready_nodes(&cloud, &[&node]);
        wait_failing_check(node.health(), None, "");
        let (well, text) = node.run_command(&cloud, &["doctor"]);
        assert!(well && text.contains("primary of headwater-demo"), "{text}");
        assert!(text.contains("a registry node runs no engine"), "{text}");
        let (_, text) = node.run_command(&cloud, &["plan"]);
        for part in ["registry (tag)", "127.0.0.2", "headwater-demo"] {
            assert!(text.contains(part), "{part}: {text}");
        }

        // Other nodes find it by its tags, log in with the secret, and list it.
        let fake = start_metadata("i-0edge", "127.0.0.1", &[("headwater:role", "edge"), ("headwater:cluster", "demo")]);
        let edge = Daemon::start(cloud.options(&fake)).unwrap();
        edge.process().wait_line("node ready").unwrap();
        let http = edge.wait_endpoints(None).unwrap().http.unwrap();
        let shown: Value = http::get(http, "/rest/v2/cluster/nodes/0/10").unwrap().json().unwrap();
        let roles: Vec<_> = shown.as_array().unwrap().iter().map(|node| node["role"].clone()).collect();
        assert_eq!(json!(roles).as_array().unwrap().iter().filter(|role| **role == "registry").count(), 1, "{shown}");

        for process in [node.daemon.process(), edge.process()] {
            assert!(!process.lines().iter().any(|line| line.contains("hunter2") || line.contains("panicked")));
        }
        node.stop();
    });
}

#[test]
fn killed_database_restarts_with_its_data() {
    with_each_mongod(|cloud| {
        let cloud = cloud.with_secrets();
        let node = cloud.start_node("127.0.0.2");
        node.wait_line("node ready");
        for _ in 0..2 {
            let before = node.daemon.process().line_count();
            kill(node.mongod_pid(), Signal::SIGKILL).unwrap();
            let after = |needle: &str| node.daemon.process().wait_line_from(before, needle).unwrap();
            let line = after("mongod exited unexpectedly, restarting it");
            assert!(line.contains("signal: 9"), "{line}");
            after("mongod started");
            node.wait_ready_nodes(&cloud, &[&node]);
        }
        // One set and one user, even after three starts.
        for once in ["replica set initiated", "user that manages the replica set created"] {
            assert_eq!(node.daemon.process().lines().iter().filter(|line| line.contains(once)).count(), 1);
        }
        let mongod = node.mongod_pid();
        node.stop();
        assert!(kill(mongod, None).is_err(), "mongod outlived its daemon");
    });
}

#[test]
fn password_of_the_secret_is_applied_and_data_survive_a_restart() {
    with_each_mongod(|cloud| {
        let cloud = cloud.with_secrets();
        let node = cloud.start_node("127.0.0.2");
        node.wait_line("node ready");
        node.stop();
        cloud.moto.put_secret("headwater/demo/registry", &REGISTRY_SECRET.replace("hunter2", "hunter3")).unwrap();
        let RegistryNode { id, daemon, metadata, folder } = node;
        drop(daemon);
        let daemon = Daemon::start_in(cloud.options(&metadata), folder.path()).unwrap();
        let node = RegistryNode { id, daemon, metadata, folder };
        node.wait_line("password of the registry user set from its secret");
        node.wait_line("node ready");
        node.wait_ready_nodes(&cloud, &[&node]);
    });
}

#[test]
fn full_disk_at_first_boot_is_reported_and_not_mistaken_for_a_wrong_secret() {
    // A full disk cannot be simulated with a real mongod.
    let Some(database) = Database::start().unwrap() else { return };
    let Some(cloud) = TestCloud::start(program_path("headwater-mongod-stand-in").unwrap(), Some(database)) else {
        return;
    };
    let cloud = cloud.with_secrets();
    let full = cloud.folder.path().join("users.full");
    std::fs::write(&full, "").unwrap();
    let node = cloud.start_node("127.0.0.2");
    let line = node.wait_line("no space left on device");
    assert!(line.contains("could not create the first user"), "{line}");
    std::fs::remove_file(full).unwrap();
    node.wait_line("node ready");
    let lines = node.daemon.process().lines();
    let blamed = lines.iter().find(|line| line.contains("another password for headwater-keeper"));
    assert_eq!(blamed, None, "a full disk is reported as a wrong secret");
}

#[test]
fn three_nodes_form_one_set_replace_a_lost_member_and_hand_over_the_primary() {
    with_each_mongod(|cloud| {
        let cloud = cloud.with_secrets();
        let first = cloud.start_node("127.0.0.2");
        first.wait_line("node ready");
        let (second, third) = (cloud.start_node("127.0.0.3"), cloud.start_node("127.0.0.4"));
        for node in [&second, &third] {
            node.wait_line("node ready");
            assert!(!node.daemon.process().lines().iter().any(|line| line.contains("replica set initiated")));
        }
        first.wait_ready_nodes(&cloud, &[&first, &second, &third]);

        // An instance is lost and replaced by another one.
        cloud.moto.ec2("TerminateInstances", &[("InstanceId.1", &third.id)]).unwrap();
        drop(third);
        let fourth = cloud.start_node("127.0.0.5");
        fourth.wait_line("node ready");
        wait::until_within(2 * WAIT_TIMEOUT, "the lost member to be removed", || {
            let lines = first.daemon.process().lines();
            let is_removed =
                |line: &&String| line.contains("missing registry node removed") && line.contains("127.0.0.4:");
            lines.iter().find(is_removed).map(drop)
        })
        .unwrap();

        // The primary shuts down cleanly: another member is primary before it ends.
        first.stop();
        first.wait_line("another registry node takes over");
        let lines = [&second, &fourth].map(|node| node.daemon.process().lines().join("\n"));
        assert!(!lines.iter().any(|text| text.contains("replica set initiated")));
        // Holds over more than a dozen renewals of its entry.
        let reports = first.daemon.process().lines().iter().filter(|line| line.contains("node ready")).count();
        assert_eq!(reports, 1, "a node that stays ready logs it more than once");
        wait::until("a new primary", || {
            let primary =
                |node: &RegistryNode| node.daemon.process().lines().iter().any(|line| line.contains("state=primary"));
            (primary(&second) || primary(&fourth)).then_some(())
        })
        .unwrap();
        second.wait_ready_nodes(&cloud, &[&second, &fourth]);
    });
}

#[test]
fn no_set_is_initiated_over_data_of_another_set() {
    with_each_mongod(|cloud| {
        let cloud = cloud.with_secrets();
        let node = cloud.start_node("127.0.0.2");
        node.wait_line("node ready");
        node.stop();
        // As if the set had removed the node. Only the stand-in can lose its configuration and keep
        // its users.
        if std::fs::remove_file(node.folder.path().join("data/mongodb/config.bson")).is_err() {
            return;
        }
        let RegistryNode { id, daemon, metadata, folder } = node;
        drop(daemon);
        let daemon = Daemon::start_in(cloud.options(&metadata), folder.path()).unwrap();
        let node = RegistryNode { id, daemon, metadata, folder };
        node.wait_line("belongs to a replica set that has removed that node");
        assert!(!node.daemon.process().lines().iter().any(|line| line.contains("replica set initiated")));
    });
}

#[test]
fn changed_password_is_applied_within_a_minute_and_all_nodes_follow() {
    with_each_mongod(|cloud| {
        let cloud = cloud.with_secrets();
        let node = cloud.start_node("127.0.0.2");
        node.wait_line("node ready");
        let fake = start_metadata("i-0edge", "127.0.0.1", &[("headwater:role", "edge"), ("headwater:cluster", "demo")]);
        let edge = Daemon::start(cloud.options(&fake)).unwrap();
        edge.process().wait_line("node ready").unwrap();
        let health = edge.wait_endpoints(None).unwrap().health;
        let start = node.daemon.process().line_count();
        cloud.moto.put_secret("headwater/demo/registry", &REGISTRY_SECRET.replace("hunter2", "hunter3")).unwrap();
        for needle in ["the registry's secret has changed", "password of the registry user set from its secret"] {
            wait::until_within(3 * WAIT_TIMEOUT, needle, || {
                let lines = node.daemon.process().lines_from(start);
                lines.iter().any(|line| line.contains(needle)).then_some(())
            })
            .unwrap();
        }
        // A node that reads the secret now can log in, and nothing was restarted.
        node.wait_ready_nodes(&cloud, &[&node]);
        assert!(!node.daemon.process().lines_from(start).iter().any(|line| line.contains("mongod started")));

        // Connected nodes must log in again and have only the old password.
        kill(node.mongod_pid(), Signal::SIGKILL).unwrap();
        wait::until_within(2 * WAIT_TIMEOUT, "the edge to read the secret again", || {
            let lines = edge.process().lines();
            lines.iter().any(|line| line.contains("the registry's nodes or its password have changed")).then_some(())
        })
        .unwrap();
        edge.process().wait_line("registry is reachable again").unwrap();
        wait_failing_check(health, None, "");
        node.wait_ready_nodes(&cloud, &[&node]);
        for process in [node.daemon.process(), edge.process()] {
            assert!(!process.lines().iter().any(|line| line.contains("hunter") || line.contains("panicked")));
        }
        node.stop();
    });
}

#[test]
fn registry_node_with_a_spot_notice_hands_over_and_shuts_down_cleanly() {
    with_each_mongod(|cloud| {
        let cloud = cloud.with_secrets();
        let first = cloud.start_node("127.0.0.2");
        first.wait_line("node ready");
        let others = ["127.0.0.3", "127.0.0.4"].map(|address| cloud.start_node(address));
        for node in &others {
            node.wait_line("node ready");
        }
        first.wait_ready_nodes(&cloud, &[&first, &others[0], &others[1]]);
        first.metadata.change(|s| s.spot_action = Some("terminate".to_owned()));
        let line = first.wait_line("draining");
        assert!(line.contains("spot notice: EC2 will terminate this instance"), "{line}");
        first.wait_line("another registry node takes over");
        // EC2 gives two minutes; the node ends without a signal.
        assert_eq!(first.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
        assert!(first.wait_line("mongod process exited").contains("exit status: 0"));
        others[0].wait_ready_nodes(&cloud, &[&others[0], &others[1]]);
    });
}

#[test]
fn missing_mongod_is_reported_and_used_once_installed() {
    with_each_mongod(|cloud| {
        let mut cloud = cloud.with_secrets();
        let link = cloud.folder.path().join("mongod");
        let mongod = std::mem::replace(&mut cloud.mongod, link.clone());
        let node = cloud.start_node("127.0.0.2");
        let line = node.wait_line("could not run");
        assert!(line.contains("out of service") && line.contains("program under [mongod] sets its path"), "{line}");
        std::os::unix::fs::symlink(mongod, link).unwrap();
        node.wait_line("node ready");
    });
}

#[test]
fn waiting_registry_node_stops_on_sigterm() {
    with_each_mongod(|mut cloud| {
        cloud.mongod = "/nonexistent/mongod".into();
        let node = cloud.start_node("127.0.0.2");
        node.wait_line("out of service");
        node.daemon.process().signal(Signal::SIGTERM);
        assert_eq!(node.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
        let cloud = cloud.with_secrets();
        let node = cloud.start_node("127.0.0.3");
        node.wait_line("could not run");
        node.daemon.process().signal(Signal::SIGTERM);
        assert_eq!(node.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    });
}

/// Starts a registry node that a group has launched and that waits for the launching hook.
fn start_in_group(cloud: &TestCloud, scaling: &FakeAutoScaling) -> (String, Daemon) {
    let id = cloud.moto.run_instance_at(&cloud.subnet, "127.0.0.2", &REGISTRY_NODE_TAGS).unwrap();
    let tags: Vec<_> = REGISTRY_NODE_TAGS.into_iter().chain([("aws:autoscaling:groupName", "registry")]).collect();
    let metadata = Arc::new(start_metadata(&id, "127.0.0.2", &tags));
    let mut options = cloud.options(&metadata);
    scaling
        .launch(&id, "registry", move |target| metadata.change(|s| s.target_lifecycle_state = Some(target.to_owned())));
    let url = scaling.environment().remove(0).1;
    options.environment.push(("AWS_ENDPOINT_URL_AUTO_SCALING", url));
    (id, Daemon::start(options).unwrap())
}

#[test]
fn hooks_are_completed_once_the_node_is_ready_and_once_it_has_drained() {
    with_each_mongod(|cloud| {
        let cloud = cloud.with_secrets();
        let scaling = FakeAutoScaling::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let (id, node) = start_in_group(&cloud, &scaling);
        let in_service = |i: &Instance| (i.lifecycle == Lifecycle::InService).then_some(());
        scaling.wait(&id, WAIT_TIMEOUT, "completion of the launching hook", in_service).unwrap();
        // Both lines are logged eventually; their order counts.
        node.process().wait_line("lifecycle hook completed hook=launching").unwrap();
        node.process().wait_line("node ready").unwrap();
        let lines = node.process().lines();
        let at = |needle: &str| lines.iter().position(|line| line.contains(needle)).unwrap();
        assert!(at("node ready") < at("lifecycle hook completed"), "the hook was completed before the node was ready");
        // A stopped database has not ended.
        kill(mongod_pid(&node), Signal::SIGSTOP).unwrap();
        scaling.terminate(&id).unwrap();
        let held = |i: &Instance| (i.heartbeats >= 1).then_some(i.lifecycle);
        let lifecycle = scaling.wait(&id, WAIT_TIMEOUT, "the drain", held).unwrap();
        assert_eq!(lifecycle, Lifecycle::TerminatingWait);
        kill(mongod_pid(&node), Signal::SIGCONT).unwrap();
        let passed = |i: &Instance| (i.lifecycle == Lifecycle::Terminated && i.completed).then_some(());
        scaling.wait(&id, WAIT_TIMEOUT, "completion of the terminating hook", passed).unwrap();
        assert!(node.process().wait_line("mongod process exited").unwrap().contains("exit status: 0"));
        assert_eq!(node.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    });
}

#[test]
fn launching_hook_is_not_completed_while_the_node_is_no_longer_ready() {
    with_each_mongod(|cloud| {
        let mut cloud = cloud.with_secrets();
        let link = cloud.folder.path().join("mongod");
        let program = std::mem::replace(&mut cloud.mongod, link.clone());
        std::os::unix::fs::symlink(&program, &link).unwrap();
        let scaling = FakeAutoScaling::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        // Auto Scaling is unavailable when the node becomes ready.
        scaling.fail_requests(u32::MAX);
        let (id, node) = start_in_group(&cloud, &scaling);
        scaling.extend_hook(&id, 4 * WAIT_TIMEOUT).unwrap();
        node.process().wait_line("node ready").unwrap();
        node.process().wait_line("Auto Scaling request failed, retrying").unwrap();
        // The database has ended and cannot be restarted: the node is no longer ready.
        std::fs::remove_file(&link).unwrap();
        kill(mongod_pid(&node), Signal::SIGKILL).unwrap();
        node.process().wait_line("could not register this node or renew its lease").unwrap();
        let mut asked = (scaling.actions().len(), Instant::now());
        wait::until("requests to Auto Scaling to stop", || {
            let now = scaling.actions().len();
            if now != asked.0 {
                asked = (now, Instant::now());
            }
            (asked.1.elapsed() > 2 * RETRY_INTERVAL).then_some(())
        })
        .unwrap();
        scaling.fail_requests(0);
        std::os::unix::fs::symlink(&program, &link).unwrap();
        let in_service = |i: &Instance| (i.lifecycle == Lifecycle::InService).then_some(());
        scaling.wait(&id, WAIT_TIMEOUT, "completion of the launching hook", in_service).unwrap();
    });
}

#[test]
fn second_sigterm_kills_the_database_at_once() {
    with_each_mongod(|cloud| {
        let cloud = cloud.with_secrets();
        let node = cloud.start_node("127.0.0.2");
        node.wait_line("node ready");
        // A stopped database would be killed only after a minute.
        kill(node.mongod_pid(), Signal::SIGSTOP).unwrap();
        node.daemon.process().signal(Signal::SIGTERM);
        node.wait_line("a second signal stops at once");
        node.daemon.process().signal(Signal::SIGTERM);
        assert_eq!(node.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
        assert!(node.wait_line("mongod process exited").contains("signal: 9"));
    });
}
