//! The administrator: created at the first boot or from the cluster's secret, logs in with a
//! password or a session, and is the only user who may change anything. Also the commands that
//! inspect a node and its cluster from a terminal.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use headwater_tests::cluster::{self, Node};
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Options, wait_status};
use headwater_tests::http::{self, Response};
use headwater_tests::mongo::Database;
use headwater_tests::publish::{self, Source};
use headwater_tests::temp::TempDir;
use headwater_tests::wait::{self, WAIT_TIMEOUT};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const NODES_PATH: &str = "/rest/v2/cluster/nodes/0/50";
const SESSION_PATH: &str = "/rest/v2/session";

fn stdout_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Value of the log field `key` in a line.
fn field(line: &str, key: &str) -> String {
    line.split(&format!("{key}=")).nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
}

fn basic_auth(password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("admin:{password}")))
}

fn log_in(http: SocketAddr, password: &str) -> Response {
    let body = json!({ "name": "admin", "password": password }).to_string();
    http::request(http, "POST", SESSION_PATH, &[("content-type", "application/json")], body.as_bytes()).unwrap()
}

/// Name and value of the session cookie of a successful login.
fn session_cookie(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    let set = response.header("set-cookie").unwrap();
    assert!(set.contains("; HttpOnly; SameSite=Strict") && !set.contains("Secure"), "{set}");
    set.split(';').next().unwrap().to_owned()
}

fn is_administrator(http: SocketAddr, cookie: &str) -> bool {
    let response = http::request(http, "GET", SESSION_PATH, &[("cookie", cookie)], b"").unwrap();
    response.json::<Value>().unwrap()["administrator"] == true
}

/// Removes a node; returns the status and the error code of the response.
fn remove_node(http: SocketAddr, id: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let response = http::request(http, "DELETE", &format!("/rest/v2/cluster/node/{id}"), headers, b"").unwrap();
    let body: Value = response.json().unwrap();
    (response.status, body["error"].as_str().unwrap_or_default().to_owned())
}

/// Drains a node; returns the status and the error code of the response.
fn drain_node(http: SocketAddr, id: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let response = http::request(http, "POST", &format!("/rest/v2/cluster/node/{id}/drain"), headers, b"").unwrap();
    let body: Value = response.json().unwrap();
    (response.status, body["error"].as_str().unwrap_or_default().to_owned())
}

/// Waits until one node of a cluster has written the password of the secret to the registry, from
/// which the others read it. Trying the password instead would count as guessing and lock the test
/// out after a few attempts.
fn wait_administrator(nodes: [&Daemon; 2]) {
    let has_written_password =
        |node: &Daemon| node.process().lines().iter().any(|l| l.contains("taken from the cluster's secret"));
    wait::until("the administrator", || nodes.into_iter().any(has_written_password).then_some(())).unwrap();
}

/// Runs `headwaterd doctor` until no check fails and these checks have these results. On a busy
/// machine a request of a check may time out.
fn wait_doctor(daemon: &Daemon, environment: &[(&'static str, String)], expected: &[(&str, &str)]) {
    let mut findings = Vec::new();
    let passed = wait::until("the doctor", || {
        let output = daemon.run_command(&["doctor", "--json"], environment).unwrap();
        findings = serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap();
        let is_expected = |(check, mark): &(&str, &str)| finding_mark(&findings, check) == *mark;
        (output.status.code() == Some(0) && expected.iter().all(is_expected)).then_some(())
    });
    assert!(passed.is_ok(), "expected {expected:?}: {findings:#?}");
}

/// Result of the check with this name.
fn finding_mark<'a>(findings: &'a [Value], check: &str) -> &'a str {
    findings.iter().find(|finding| finding["check"] == check).unwrap()["mark"].as_str().unwrap()
}

fn any_file_contains(folder: &Path, needle: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
    })
}

#[test]
fn first_boot_prints_the_only_valid_password_once() {
    let folder = TempDir::new().unwrap();
    let first = Daemon::start_in(Options::default(), folder.path()).unwrap();
    let line = first.process().wait_line("administrator created").unwrap();
    let (user, password) = (field(&line, "user"), field(&line, "password"));
    assert_eq!((user.as_str(), password.len()), ("admin", 23));
    first.process().wait_line("node ready").unwrap();
    let at = first.wait_endpoints(None).unwrap().http.unwrap();
    // In plain text the password is in one file only, which only the user of the node can read.
    let file = first.data_dir().join("administrator.password");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), password);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::remove_file(&file).unwrap();
    assert!(!any_file_contains(first.data_dir(), &password), "the password is stored in plain text");

    // With a password, as curl sends it.
    assert_eq!(remove_node(at, "x", &[]), (401, "unauthorized".to_owned()));
    assert_eq!(remove_node(at, "x", &[("authorization", &basic_auth("wrong"))]), (401, "wrong_password".to_owned()));
    assert_eq!(remove_node(at, "x", &[("authorization", &basic_auth(&password))]), (404, "node_not_found".to_owned()));
    // Every write is refused before it is parsed, even at paths that do not support the method.
    for method in ["POST", "PUT", "DELETE"] {
        let response = http::request(at, method, "/rest/v2/streams/live/a", &[], b"{}").unwrap();
        assert!(matches!(response.status, 401 | 405), "{method}: {}", response.status);
    }

    // With a session, as the page does.
    assert_eq!(log_in(at, "wrong").status, 401);
    let form =
        http::request(at, "POST", SESSION_PATH, &[("content-type", "text/plain")], b"{\"password\": \"x\"}").unwrap();
    assert_eq!(form.status, 415);
    let cookie = session_cookie(&log_in(at, &password));
    assert!(is_administrator(at, &cookie) && !is_administrator(at, "headwater_session=x.1.y.z"));
    let own = format!("http://{at}");
    assert_eq!(remove_node(at, "x", &[("cookie", &cookie)]), (403, "cross_origin".to_owned()));
    let foreign = [("cookie", cookie.as_str()), ("origin", "http://evil.example")];
    assert_eq!(remove_node(at, "x", &foreign), (403, "cross_origin".to_owned()));
    assert_eq!(remove_node(at, "x", &[("cookie", &cookie), ("origin", &own)]), (404, "node_not_found".to_owned()));
    let out = http::request(at, "DELETE", SESSION_PATH, &[("cookie", &cookie), ("origin", &own)], b"").unwrap();
    assert!(out.status == 204 && out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert!(!is_administrator(at, &cookie), "the session outlives the sign-out");
    let signed_out = cookie;
    let cookie = session_cookie(&log_in(at, &password));

    // The second boot prints no password, and sessions stay valid.
    first.process().signal(Signal::SIGTERM);
    assert_eq!(first.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    let second = Daemon::start_in(Options::default(), folder.path()).unwrap();
    second.process().wait_line("node ready").unwrap();
    let at = second.wait_endpoints(None).unwrap().http.unwrap();
    assert!(!second.process().lines().iter().any(|l| l.contains("password")));
    assert!(is_administrator(at, &cookie) && !is_administrator(at, &signed_out));

    // A reset while the node runs invalidates password and sessions.
    let new = stdout_text(&second.run_command(&["password", "--reset"], &[]).unwrap());
    let new = new.lines().find_map(|l| l.strip_prefix("password: ")).unwrap().to_owned();
    assert!(new != password && !is_administrator(at, &cookie));
    assert_eq!(log_in(at, &password).status, 401);
    assert_eq!(log_in(at, &new).status, 200);
    assert!(!second.process().lines().iter().any(|l| l.contains(&new) || l.contains(&password)));
    assert!(!any_file_contains(second.data_dir(), &new));

    // Guessing is limited, but the correct password still works.
    let guesses: Vec<u16> = (0..12).map(|n| log_in(at, &format!("guess {n}")).status).collect();
    assert_eq!(guesses.last(), Some(&429), "{guesses:?}");
    assert_eq!(guesses[..7], [401; 7]);
    assert_eq!(
        remove_node(at, "x", &[("authorization", &basic_auth(&new))]).0,
        404,
        "a password verified a moment ago counts as a guess"
    );
}

#[test]
fn session_cookie_is_secure_behind_a_tls_proxy() {
    let trusts_loopback = |c: &mut headwater_api::Config| c.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let daemon = Daemon::start(Options::with(trusts_loopback)).unwrap();
    let password = field(&daemon.process().wait_line("administrator created").unwrap(), "password");
    daemon.process().wait_line("node ready").unwrap();
    let at = daemon.wait_endpoints(None).unwrap().http.unwrap();
    let body = json!({ "password": password }).to_string();
    let headers = [("content-type", "application/json"), ("x-forwarded-proto", "https")];
    let response = http::request(at, "POST", SESSION_PATH, &headers, body.as_bytes()).unwrap();
    assert!(response.header("set-cookie").unwrap().ends_with("; Secure"), "{:?}", response.headers);
}

#[test]
fn doctor_passes_on_a_running_node_and_fails_on_a_stopped_one() {
    let daemon = Daemon::start(Options::default()).unwrap();
    daemon.process().wait_line("node ready").unwrap();
    let at = daemon.wait_endpoints(None).unwrap();
    let expected = [
        ("metadata", "skip"),
        ("tags", "skip"),
        ("role", "ok"),
        ("registry", "ok"),
        ("ports", "ok"),
        ("clock", "ok"),
        ("certificate", "skip"),
        ("stream", "skip"),
        ("relay", "skip"),
    ];
    wait_doctor(&daemon, &[], &expected);

    let stream = |name: &str| daemon.run_command(&["doctor", "--stream", name], &[]).unwrap();
    let missing = stream("live/a");
    assert_eq!(missing.status.code(), Some(69));
    assert!(stdout_text(&missing).contains("live/a is not being published"), "{}", stdout_text(&missing));
    let Some(_publisher) =
        publish::start_ffmpeg(&Source::default(), &format!("rtmp://{}/live/a", at.rtmp.unwrap())).unwrap()
    else {
        return;
    };
    wait_status(at.http.unwrap(), "live/a", "video", |s| s.video.is_some()).unwrap();
    let found = stream("live/a");
    assert!(stdout_text(&found).contains("live/a is live over rtmp"), "{}", stdout_text(&found));

    let streams = stdout_text(&daemon.run_command(&["streams"], &[]).unwrap());
    assert!(streams.starts_with("STREAM") && streams.contains("live/a"), "{streams}");
    let json: Value = serde_json::from_slice(&daemon.run_command(&["streams", "--json"], &[]).unwrap().stdout).unwrap();
    assert_eq!(json[0]["name"], "live/a");
    assert!(stdout_text(&daemon.run_command(&["nodes"], &[]).unwrap()).starts_with("NODE"));

    daemon.process().signal(Signal::SIGTERM);
    daemon.process().wait_exit(WAIT_TIMEOUT).unwrap();
    let output = daemon.run_command(&["doctor", "--json"], &[]).unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), finding_mark(&findings, "ports")), (Some(69), "fail"), "{findings:?}");
}

#[test]
fn administrator_drains_a_node_through_another_node() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    cluster::add_administrator_secret(&aws).unwrap();
    let [origin, edge] =
        [("i-0origin", "origin"), ("i-0edge", "edge")].map(|(id, role)| Node::start(&aws, id, role).unwrap());
    [&origin, &edge].iter().for_each(|node| node.wait_ready().unwrap());
    let at = edge.daemon.wait_endpoints(None).unwrap().http.unwrap();
    let password = basic_auth("the cluster's own password");
    let allowed = [("authorization", password.as_str())];
    wait_administrator([&origin.daemon, &edge.daemon]);
    assert_eq!(drain_node(at, "nobody", &allowed).0, 404);
    assert_eq!(drain_node(at, "i-0origin", &[]), (401, "unauthorized".to_owned()));
    assert_eq!(drain_node(at, "i-0origin", &allowed), (200, String::new()));
    origin.daemon.process().wait_line("draining: requested by an administrator").unwrap();
    assert_eq!(origin.daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    let alone = |at| {
        let listed: Vec<Value> = http::get(at, NODES_PATH).unwrap().json().unwrap();
        let ids: Vec<_> = listed.iter().map(|node| node["id"].clone()).collect();
        (ids == ["i-0edge"]).then_some(listed)
    };
    let left = wait::until("the drained node to have left", || alone(at)).unwrap();
    assert!(left[0]["drainAsked"] == false && left[0]["draining"] == false, "{left:?}");
    // The request does not apply to the next incarnation of the node.
    let again = Node::start(&aws, "i-0origin", "origin").unwrap();
    again.wait_ready().unwrap();
    assert!(!again.daemon.process().lines().iter().any(|line| line.contains("draining")));
}

#[test]
fn login_is_valid_on_every_node_and_a_dead_node_can_be_removed() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(aws) = cluster::start_aws(database.uri()).unwrap() else { return };
    cluster::add_administrator_secret(&aws).unwrap();
    let nodes = [("i-0origin", "origin"), ("i-0edge", "edge")].map(|(id, role)| Node::start(&aws, id, role).unwrap());
    nodes.iter().for_each(|node| node.wait_ready().unwrap());
    let [origin, edge] = nodes.each_ref().map(|node| &node.daemon);
    wait_administrator([origin, edge]);
    let (at, other) =
        (origin.wait_endpoints(None).unwrap().http.unwrap(), edge.wait_endpoints(None).unwrap().http.unwrap());
    let cookie = wait::until("a login", || {
        let response = log_in(at, "the cluster's own password");
        (response.status == 200).then(|| session_cookie(&response))
    })
    .unwrap();
    // The other node may have written the same password again, with another hash.
    wait::until("the session on the other node", || is_administrator(other, &cookie).then_some(())).unwrap();

    let listed = |at: SocketAddr, cookie: &str| -> Vec<Value> {
        http::request(at, "GET", NODES_PATH, &[("cookie", cookie)], b"").unwrap().json().unwrap()
    };
    let are_alive = |all: &Vec<Value>| all.len() == 2 && all.iter().all(|n| n["status"] == "alive");
    let both = wait::until("both nodes alive", || Some(listed(at, "")).filter(are_alive)).unwrap();
    let text_of_both = serde_json::to_string(&both).unwrap();
    assert!(!text_of_both.contains("127.0.0.1") && both.iter().all(|n| n["ip"] == ""), "{text_of_both}");
    assert!(listed(other, &cookie).iter().all(|n| n["addresses"][0] == "127.0.0.1" && n["ip"] == "127.0.0.1"));
    assert_eq!(http::get(at, "/rest/v2/cluster/node-count").unwrap().json::<Value>().unwrap(), json!({ "number": 2 }));
    let bounded: Vec<Value> = http::get(at, "/rest/v2/cluster/nodes/1/1").unwrap().json().unwrap();
    assert_eq!((bounded.len(), bounded[0]["id"].as_str()), (1, Some("i-0origin")));
    assert_eq!(http::get(at, "/rest/v2/cluster/nodes/x/1").unwrap().status, 400);

    // The commands, on any node.
    let environment = aws.environment();
    let table = stdout_text(&edge.run_command(&["nodes"], &environment).unwrap());
    assert!(table.contains("i-0origin") && table.contains("i-0edge") && table.lines().count() == 3, "{table}");
    let checks = ["metadata", "tags", "role", "registry", "ports", "clock", "relay"];
    wait_doctor(edge, &environment, &checks.map(|check| (check, "ok")));

    // A stream published on one node is listed by the other.
    let url = nodes[0].rtmp_url("live/a").unwrap();
    let Some(publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    let json = wait::until("the stream in the registry", || {
        let output = edge.run_command(&["streams", "--json"], &environment).unwrap();
        let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        (!all.is_empty()).then_some(all)
    })
    .unwrap();
    let names: Vec<_> = json.iter().map(|s| (s["name"].as_str(), s["origin"].as_str())).collect();
    assert_eq!(names, [(Some("live/a"), Some("i-0origin"))]);
    let table = stdout_text(&edge.run_command(&["streams"], &environment).unwrap());
    let row: Vec<_> = table.lines().nth(1).unwrap_or_default().split_whitespace().take(3).collect();
    assert!(row == ["live/a", "i-0origin", "rtmp"] && table.lines().count() == 2, "{table}");
    drop(publisher);

    // A live node cannot be removed, a dead one can.
    let own = format!("http://{at}");
    let allowed = [("cookie", cookie.as_str()), ("origin", own.as_str())];
    assert_eq!(remove_node(at, "i-0edge", &allowed), (409, "node_alive".to_owned()));
    edge.process().signal(Signal::SIGKILL);
    wait::until("the death of the node", || {
        listed(at, "").iter().any(|n| n["id"] == "i-0edge" && n["status"] == "dead").then_some(())
    })
    .unwrap();
    assert_eq!(drain_node(at, "i-0edge", &allowed), (409, "not_drainable".to_owned()));
    assert_eq!(remove_node(at, "i-0edge", &[]).0, 401);
    assert_eq!(remove_node(at, "i-0edge", &allowed), (200, String::new()));
    assert_eq!(listed(at, "").len(), 1);

    // Without the database the last known nodes are shown with their age, and sessions stay valid.
    database.kill().unwrap();
    wait::until("the age of the nodes in the response", || {
        let response = http::get(at, NODES_PATH).unwrap();
        assert_eq!(response.status, 200);
        (response.header("age").unwrap().parse::<u64>().unwrap() >= 2).then_some(())
    })
    .unwrap();
    assert!(is_administrator(at, &cookie));
    assert_eq!(remove_node(at, "i-0origin", &allowed), (503, "registry_unreachable".to_owned()));
    for daemon in [origin, edge] {
        assert!(!daemon.process().lines().iter().any(|l| l.contains("the cluster's own password")));
    }
}
