//! A daemon on EC2, with the vendor's mock and with a fake that fails on demand.

use headwater_tests::cluster;
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Options, program_path};
use headwater_tests::http;
use headwater_tests::metadata::{FakeMetadata, InstanceRole, ServiceBehavior, start_vendor_mock};
use headwater_tests::moto::Moto;
use headwater_tests::recording_proxy::RecordingProxy;
use headwater_tests::temp::TempDir;
use headwater_tests::wait::WAIT_TIMEOUT;
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

fn options_with_metadata(metadata: SocketAddr) -> Options {
    Options::with(|config| config.metadata.endpoint = metadata)
}

fn start_daemon(fake: &FakeMetadata) -> Daemon {
    Daemon::start(options_with_metadata(fake.address())).unwrap()
}

/// `headwaterd plan --json` with this metadata service.
fn run_plan(metadata: SocketAddr) -> serde_json::Value {
    run_plan_with(metadata, &[])
}

fn run_plan_with(metadata: SocketAddr, environment: &[(&str, String)]) -> serde_json::Value {
    let folder = TempDir::new().unwrap();
    let file = folder.write("node.toml", format!("metadata.endpoint = \"{metadata}\"\n")).unwrap();
    let output = Command::new(program_path("headwaterd").unwrap())
        .args(["plan", "--json", "--config"])
        .arg(file)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().map(|(k, v)| (k, v)))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn wait_drained(daemon: &Daemon, why: &str) {
    let line = daemon.process().wait_line(why).unwrap();
    assert!(line.contains("draining"), "{line}");
    assert_eq!(daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
}

const STANDALONE_TAG: (&str, &str) = ("headwater:role", "standalone");

#[test]
fn role_cluster_and_id_are_read_from_the_vendor_mock() {
    let Some((_mock, address, _folder)) = start_vendor_mock("origin", "demo", &[]).unwrap() else { return };
    let report = run_plan(address);
    let instance = &report["facts"]["instance"];
    assert_eq!((instance["id"].as_str(), instance["region"].as_str()), (Some("i-0aa"), Some("us-east-1")));
    assert_eq!(instance["target_lifecycle_state"], "Terminated"); // the mock's value unless it is given a delay
    let plan = &report["plan"];
    assert_eq!((plan["engine"]["node"]["role"].as_str(), plan["role_from"].as_str()), (Some("origin"), Some("tag")));
    assert_eq!(plan["engine"]["node"]["id"], "i-0aa");
    assert_eq!(plan["engine"]["node"]["addresses"][0], "192.0.2.54");
    assert_eq!(
        (plan["cluster"]["name"].as_str(), plan["cluster"]["registry"].as_str()),
        (Some("demo"), Some("discover"))
    );
}

#[test]
fn node_drains_when_the_vendor_mock_reports_terminated() {
    let waits = ["--asg-termination-delay-sec", "3", "--mock-delay-sec", "1000"];
    let Some((_mock, address, _folder)) = start_vendor_mock("standalone", "demo", &waits).unwrap() else { return };
    let daemon = Daemon::start(options_with_metadata(address)).unwrap();
    daemon.process().wait_line("node ready").unwrap();
    wait_drained(&daemon, "Auto Scaling terminates this instance");
}

#[test]
fn node_drains_on_a_spot_notice_of_the_vendor_mock() {
    let waits = ["--asg-termination-delay-sec", "1000", "--mock-delay-sec", "3"];
    let Some((_mock, address, _folder)) = start_vendor_mock("standalone", "demo", &waits).unwrap() else { return };
    let daemon = Daemon::start(options_with_metadata(address)).unwrap();
    daemon.process().wait_line("node ready").unwrap();
    wait_drained(&daemon, "spot notice: EC2 will terminate this instance");
}

#[test]
fn group_member_without_a_role_tag_stays_out_of_service_until_it_is_set() {
    let fake = FakeMetadata::start(&[]).unwrap();
    fake.change(|s| s.target_lifecycle_state = Some("InService".to_owned()));
    let daemon = start_daemon(&fake);
    let line = daemon.process().wait_line("out of service").unwrap();
    assert!(line.contains("belongs to an Auto Scaling group but has no `headwater:role` tag"), "{line}");
    assert!(!daemon.data_dir().exists() && daemon.process().is_running());
    fake.change(|s| s.tags = Some([("headwater:role".to_owned(), "king".to_owned())].into()));
    daemon.process().wait_line("tag `headwater:role` is \"king\"").unwrap();
    fake.change(|s| s.tags = Some([(STANDALONE_TAG.0.to_owned(), STANDALONE_TAG.1.to_owned())].into()));
    daemon.process().wait_line("node ready").unwrap();
}

#[test]
fn out_of_service_node_stops_on_sigterm() {
    let fake = FakeMetadata::start(&[("headwater:role", "king")]).unwrap();
    let daemon = start_daemon(&fake);
    daemon.process().wait_line("out of service").unwrap();
    daemon.process().signal(Signal::SIGTERM);
    assert_eq!(daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
}

#[test]
fn instance_outside_a_group_without_tags_is_standalone() {
    for hidden in [false, true] {
        let fake = FakeMetadata::start(&[]).unwrap();
        fake.change(|s| {
            s.public_ipv4 = Some("203.0.113.9".to_owned());
            if hidden {
                s.tags = None;
            }
        });
        let report = run_plan(fake.address());
        assert_eq!(report["plan"]["engine"]["node"]["role"], "standalone");
        assert_eq!(report["plan"]["engine"]["node"]["id"], "i-0fake");
        assert_eq!(report["plan"]["addresses"], serde_json::json!(["203.0.113.9", "127.0.0.1"]));
    }
}

#[test]
fn unreadable_tags_are_reported_with_the_required_permissions() {
    let fake = FakeMetadata::start(&[]).unwrap();
    fake.change(|s| {
        s.tags = None;
        s.target_lifecycle_state = Some("InService".to_owned());
    });
    let line = start_daemon(&fake).process().wait_line("out of service").unwrap();
    for part in ["InstanceMetadataTags", "ec2:DescribeTags of i-0fake did not work"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn instance_with_a_profile_waits_for_unreadable_tags() {
    let fake = FakeMetadata::start(&[]).unwrap();
    let text = |text: &str| text.to_owned();
    let role =
        InstanceRole { name: text("node"), access_key_id: text("a"), secret_access_key: text("b"), token: text("c") };
    fake.change(|s| (s.tags, s.role) = (None, Some(role)));
    let daemon = start_daemon(&fake);
    let line = daemon.process().wait_line("out of service").unwrap();
    for part in ["the tags of this instance could not be read", "ec2:DescribeTags of i-0fake did not work"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!daemon.data_dir().exists() && daemon.process().is_running());
    fake.change(|s| s.tags = Some([("headwater:cluster".to_owned(), "demo".to_owned())].into()));
    daemon.process().wait_line("has the tag `headwater:cluster` but no `headwater:role` tag").unwrap();
    fake.change(|s| s.tags = Some([(STANDALONE_TAG.0.to_owned(), STANDALONE_TAG.1.to_owned())].into()));
    daemon.process().wait_line("node ready").unwrap();
}

#[test]
fn warm_instance_starts_nothing_until_it_is_in_service() {
    let fake = FakeMetadata::start(&[STANDALONE_TAG]).unwrap();
    fake.change(|s| s.target_lifecycle_state = Some("Warmed:Running".to_owned()));
    let daemon = start_daemon(&fake);
    daemon.process().wait_line("Auto Scaling keeps this instance warm").unwrap();
    assert!(!daemon.data_dir().exists());
    fake.change(|s| s.target_lifecycle_state = Some("InService".to_owned()));
    daemon.process().wait_line("node ready").unwrap();
}

#[test]
fn revoked_token_and_changed_tag_do_not_prevent_a_drain() {
    let fake = FakeMetadata::start(&[STANDALONE_TAG]).unwrap();
    let daemon = start_daemon(&fake);
    daemon.process().wait_line("node ready").unwrap();
    fake.change(|s| {
        s.token = "token-2".to_owned();
        s.tags = Some([("headwater:role".to_owned(), "edge".to_owned())].into());
    });
    daemon.process().wait_line("a tag of this instance has changed").unwrap();
    fake.change(|s| s.target_lifecycle_state = Some("Terminated".to_owned()));
    wait_drained(&daemon, "Auto Scaling terminates this instance");
}

#[test]
fn node_serves_through_a_metadata_outage_and_notices_the_recovery() {
    let fake = FakeMetadata::start(&[STANDALONE_TAG]).unwrap();
    let daemon = start_daemon(&fake);
    daemon.process().wait_line("node ready").unwrap();
    fake.change(|s| s.behavior = ServiceBehavior::Status(500));
    daemon.process().wait_line("instance metadata no longer answers").unwrap();
    let at = daemon.wait_endpoints(None).unwrap();
    assert_eq!(http::get(at.health, "/readyz").unwrap().status, 200);
    fake.change(|s| {
        s.behavior = ServiceBehavior::Normal;
        s.spot_action = Some("stop".to_owned());
    });
    wait_drained(&daemon, "spot notice: EC2 will stop this instance");
}

#[test]
fn imdsv1_timeout_or_refusal_means_no_instance() {
    for manner in [
        ServiceBehavior::ImdsV1Only,
        ServiceBehavior::Unresponsive,
        ServiceBehavior::Status(401),
        ServiceBehavior::Status(404),
    ] {
        let fake = FakeMetadata::start(&[("headwater:role", "king")]).unwrap();
        fake.change(|s| s.behavior = manner);
        let report = run_plan(fake.address());
        assert_eq!(report["facts"]["instance"], serde_json::Value::Null, "{manner:?}");
        assert_eq!(report["plan"]["engine"]["node"]["role"], "standalone");
    }
}

#[test]
fn node_waits_for_required_metadata_and_starts() {
    let fake = FakeMetadata::start(&[STANDALONE_TAG]).unwrap();
    fake.change(|s| s.behavior = ServiceBehavior::Status(503));
    let mut options = options_with_metadata(fake.address());
    options.config.metadata.required = true;
    options.log = "debug";
    let daemon = Daemon::start(options).unwrap();
    daemon.process().wait_line("no metadata yet").unwrap();
    assert!(!daemon.data_dir().exists());
    fake.change(|s| s.behavior = ServiceBehavior::Normal);
    daemon.process().wait_line("node ready").unwrap();
}

#[test]
fn node_waiting_for_metadata_stops_on_sigterm() {
    let fake = FakeMetadata::start(&[STANDALONE_TAG]).unwrap();
    fake.change(|s| s.behavior = ServiceBehavior::Unresponsive);
    let mut options = options_with_metadata(fake.address());
    options.config.metadata.required = true;
    options.log = "debug";
    let daemon = Daemon::start(options).unwrap();
    daemon.process().wait_line("no metadata yet").unwrap();
    daemon.process().signal(Signal::SIGTERM);
    assert_eq!(daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    assert!(!daemon.data_dir().exists());
}

#[test]
fn required_metadata_from_a_slow_service_is_awaited() {
    // Slower than the limit where metadata is optional.
    let fake = FakeMetadata::start(&[STANDALONE_TAG]).unwrap();
    fake.change(|s| s.behavior = ServiceBehavior::Slow(Duration::from_millis(800)));
    let mut options = options_with_metadata(fake.address());
    options.config.metadata.required = true;
    let daemon = Daemon::start(options).unwrap();
    let line = daemon.process().wait_line("headwaterd starting").unwrap();
    assert!(line.contains("node=i-0fake") && line.contains("role=standalone"), "{line}");
    daemon.process().wait_line("node ready").unwrap();
    fake.change(|s| s.target_lifecycle_state = Some("Terminated".to_owned()));
    wait_drained(&daemon, "Auto Scaling terminates this instance");
}

#[test]
fn tags_hidden_in_metadata_are_read_from_ec2() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let tags = [("headwater:role", "standalone"), ("headwater:cluster", "demo"), ("Name", "not ours")];
    let (id, _) = moto.run_instance(&tags).unwrap();
    let fake = FakeMetadata::start(&[]).unwrap();
    fake.change(|s| {
        s.tags = None;
        s.id = id;
    });
    let report = run_plan_with(fake.address(), &moto.environment());
    let tags = serde_json::json!({ "headwater:role": "standalone", "headwater:cluster": "demo" });
    assert_eq!(report["facts"]["instance"]["tags"], serde_json::json!({ "from": "api", "tags": tags }));
    assert_eq!(report["plan"]["role_from"], "tag");
}

#[test]
fn registry_is_found_by_tags_and_its_password_in_a_secret() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let run = |role: &str, cluster: &str| {
        moto.run_instance(&[("headwater:role", role), ("headwater:cluster", cluster)]).unwrap().1
    };
    let mut expected_hosts = [run("registry", "demo"), run("registry", "demo")].map(|ip| format!("{ip}:27017"));
    expected_hosts.sort_by_key(|host| host.trim_end_matches(":27017").parse::<std::net::Ipv4Addr>().unwrap());
    run("registry", "other");
    run("edge", "demo");
    let fake = FakeMetadata::start(&[("headwater:role", "edge"), ("headwater:cluster", "demo")]).unwrap();
    let report = run_plan_with(fake.address(), &moto.environment());
    let why = report["registry"]["Err"].as_str().unwrap();
    assert!(why.contains("secretsmanager:GetSecretValue of headwater/demo/registry did not work"), "{why}");
    moto.create_secret("headwater/demo/registry", r#"{"username": "headwater", "password": "hunter2"}"#).unwrap();
    let report = run_plan_with(fake.address(), &moto.environment());
    assert_eq!(report["registry"]["Ok"]["hosts"], serde_json::json!(expected_hosts));
    assert!(!report.to_string().contains("hunter2"));
}

#[test]
fn cluster_without_registry_nodes_is_reported() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let fake = FakeMetadata::start(&[("headwater:role", "origin"), ("headwater:cluster", "demo")]).unwrap();
    let report = run_plan_with(fake.address(), &moto.environment());
    let why = report["registry"]["Err"].as_str().unwrap();
    assert_eq!(why, "no running instance has the tags of a registry node of cluster \"demo\"");
}

#[test]
fn aws_credentials_come_from_the_role_in_the_configured_metadata_service() {
    let away = "mongodb://u:p@127.0.0.1:1/?serverSelectionTimeoutMS=500";
    let Some(moto) = cluster::start_aws(away).unwrap() else { return };
    let tap = RecordingProxy::start(moto.address()).unwrap();
    let tags =
        [("headwater:role", "edge"), ("headwater:cluster", "demo"), ("headwater:registry", "secret:demo/registry")];
    let fake = FakeMetadata::start(&tags).unwrap();
    let text = |text: &str| text.to_owned();
    let role = InstanceRole {
        name: text("node"),
        access_key_id: text("ASIAROLE"),
        secret_access_key: text("hunter2"),
        token: text("session-1"),
    };
    fake.change(|s| s.role = Some(role));
    let mut options = options_with_metadata(fake.address());
    options.environment = vec![
        ("AWS_ENDPOINT_URL", format!("http://{}", tap.address())),
        // Disabled in all other tests, so that no key reaches a real account.
        ("AWS_EC2_METADATA_DISABLED", text("false")),
    ];
    let node = Daemon::start(options).unwrap();
    // The node knows the address of the unreachable database only from the secret.
    let line = node.process().wait_line("out of service").unwrap();
    assert!(line.contains("the database 127.0.0.1:1 is unreachable"), "{line}");
    let requests = fake.requests();
    let credentials: Vec<_> =
        requests.iter().filter(|a| a.path == "/latest/meta-data/iam/security-credentials/node").collect();
    assert!(
        !credentials.is_empty() && credentials.iter().all(|a| a.token.is_some() && a.status == 200),
        "{requests:?}"
    );
    let sent = tap.requests();
    assert!(sent.contains("Credential=ASIAROLE/") && sent.contains("x-amz-security-token: session-1"), "{sent}");
    for secret in ["hunter2", "session-1"] {
        assert!(!node.process().lines().iter().any(|l| l.contains(secret)), "{secret} is in the log");
    }
}
