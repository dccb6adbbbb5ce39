//! `headwaterd app` and `headwaterd token` at a running node: what they print, and that the node's
//! REST API shows the same.

use headwater_tests::daemon::Daemon;
use headwater_tests::engine::Options;
use headwater_tests::http;
use serde_json::{Value, json};

/// Runs a command that must succeed, and returns what it prints.
pub(crate) fn run(node: &Daemon, arguments: &[&str]) -> String {
    let output = node.run_command(arguments, &[]).unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
    stdout.into_owned()
}

fn run_json(node: &Daemon, arguments: &[&str]) -> Value {
    serde_json::from_str(&run(node, &[arguments, &["--json"]].concat())).unwrap()
}

/// Runs a command that must fail, and returns its exit code and its message.
fn run_refused(node: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let output = node.run_command(arguments, &[]).unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn commands_change_the_apps_and_tokens_of_a_running_node() {
    let node = Daemon::start(Options::default()).unwrap();
    let http = node.wait_endpoints(None).unwrap().http;
    let names: Vec<_> = run(&node, &["app", "list"]).lines().map(|l| l.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["APP", "LiveApp", "live"]);

    let printed = run(&node, &["app", "set", "live", "--publish", "key", "--play", "one_time_token"]);
    let key = printed.lines().next().unwrap().strip_prefix("new publish key: ").unwrap().to_owned();
    let settings = run_json(&node, &["app", "show", "live"]);
    assert_eq!((&settings["publish"], &settings["publish_key"]), (&json!("key"), &json!(key)));
    assert!(run(&node, &["app", "create", "events"]).starts_with("new publish key: "));
    assert_eq!(run_json(&node, &["app", "list"]).as_array().unwrap().len(), 3);
    let events = run_json(&node, &["app", "show", "events"]);
    assert_eq!((&events["publish"], &events["play"]), (&json!("key"), &json!("open")), "{events}");
    let (code, message) = run_refused(&node, &["app", "create", "events"]);
    assert!(code == Some(69) && message.contains("events exists already"), "{code:?} {message}");
    let (code, message) = run_refused(&node, &["app", "set", "events", "--jwks-url", "ftp://example.com/"]);
    assert!(code == Some(69) && message.contains("must be an https URL"), "{code:?} {message}");
    assert!(run(&node, &["app", "set", "events", "--play", "jwt"]).starts_with("new JWT key: "));
    run(&node, &["app", "remove", "events"]);

    let made = node.run_command(&["token", "make", "live", "play", "--stream", "demo", "--valid", "12h"], &[]).unwrap();
    let (token, notes) = (String::from_utf8(made.stdout).unwrap(), String::from_utf8(made.stderr).unwrap());
    let query = format!("/live/play.html?id=demo&token={}\n", token.trim());
    assert!(notes.starts_with("player page: http://") && notes.ends_with(&query), "{notes}");
    let listed = run_json(&node, &["token", "list", "live"]);
    assert_eq!((&listed[0]["stream"], &listed[0]["revoked_at_ms"]), (&json!("demo"), &Value::Null), "{listed}");
    assert!(!listed.to_string().contains(token.trim()), "{listed}");
    let useless = node.run_command(&["token", "make", "live", "publish"], &[]).unwrap();
    assert!(String::from_utf8_lossy(&useless.stderr).starts_with("warning: live does not admit publishers"));
    run(&node, &["token", "revoke", "live", token.trim()]);
    assert!(run(&node, &["token", "list", "live"]).contains("revoked"));
    let (code, message) = run_refused(&node, &["token", "revoke", "live", "unknown"]);
    assert!(code == Some(69) && message.contains("no such token"), "{code:?} {message}");

    // The key of the commands is not for everybody.
    let visitor = http::get(http.unwrap(), "/rest/v2/apps").unwrap();
    assert_eq!(visitor.status, 401, "{}", visitor.text());
    let key_file = node.data_dir().join(headwater_api::control::LOCAL_KEY_FILE);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key_file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(&key_file).unwrap();
    let (code, message) = run_refused(&node, &["app", "list"]);
    assert!(code == Some(69) && message.contains("as root"), "{code:?} {message}");
}
