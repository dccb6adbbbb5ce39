//! HTTPS from the first start with the node's own certificate, logging in over it, and nodes whose
//! plain listeners are off. The client is curl, which verifies the certificate.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use headwater_api::config::Listen;
use headwater_api::control::Endpoints;
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Engine, Options};
use headwater_tests::http::{self, Response};
use headwater_tests::temp::TempDir;
use headwater_tests::tools::find_program;
use headwater_tests::wait::WAIT_TIMEOUT;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SESSION_PATH: &str = "/rest/v2/session";

/// curl, which trusts the certificate in one file and no other.
struct Curl {
    program: PathBuf,
    trusted: PathBuf,
}

impl Curl {
    /// `None` if it is not installed.
    fn trusting(certificate: &Path) -> Option<Self> {
        Some(Self { program: find_program("curl")?, trusted: certificate.to_owned() })
    }

    /// Sends a request; an error is curl's own sentence.
    fn request(&self, url: &str, arguments: &[&str]) -> Result<Response, String> {
        let mut command = Command::new(&self.program);
        command.args(["--silent", "--show-error", "--include", "--http1.1", "--max-time", "20", "--noproxy", "*"]);
        let output = command.arg("--cacert").arg(&self.trusted).args(arguments).arg(url).output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(http::parse(&output.stdout, false).unwrap())
    }

    fn get(&self, url: &str) -> Response {
        self.request(url, &[]).unwrap_or_else(|e| panic!("{url}: {e}"))
    }
}

/// Value of the log field `key` in a line.
fn field(line: &str, key: &str) -> String {
    line.split(&format!("{key}=")).nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
}

fn https_port(at: &Endpoints) -> u16 {
    at.https.unwrap().port()
}

fn log_in(http: SocketAddr, password: &str, headers: &[(&str, &str)]) -> Response {
    let body = json!({ "password": password }).to_string();
    let headers = [&[("content-type", "application/json")], headers].concat();
    http::request(http, "POST", SESSION_PATH, &headers, body.as_bytes()).unwrap()
}

#[test]
fn https_works_from_the_first_start_with_a_certificate_that_outlives_restarts() {
    let folder = TempDir::new().unwrap();
    let first = Daemon::start_in(Options::default(), folder.path()).unwrap();
    let line = first.process().wait_line("https uses the node's self-signed certificate").unwrap();
    first.process().wait_line("node ready").unwrap();
    let at = first.wait_endpoints(None).unwrap();
    let fingerprint = at.self_signed_fingerprint.clone().unwrap();
    assert_eq!(field(&line, "sha256"), fingerprint);
    let file = first.data_dir().join("self-signed.pem");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // curl verifies names and dates.
    let Some(curl) = Curl::trusting(&file) else { return };
    let get = |host: &str, at: &Endpoints| curl.get(&format!("https://{host}:{}/", https_port(at)));
    for host in ["localhost", "127.0.0.1"] {
        let page = get(host, &at);
        assert!(page.status == 200 && page.text().contains("<title>Headwater</title>"), "{page:?}");
        assert_eq!(page.header("strict-transport-security"), None);
    }
    let elsewhere = format!("https://media.example:{}/", https_port(&at));
    let resolve = format!("media.example:{}:127.0.0.1", https_port(&at));
    let refused = curl.request(&elsewhere, &["--resolve", &resolve]).unwrap_err();
    assert!(refused.contains("media.example"), "the certificate is for another name: {refused}");
    let readiness: Value = http::get(at.health, "/readyz").unwrap().json().unwrap();
    assert_eq!(readiness["checks"]["https"], "ok");
    let metrics = http::get(at.health, "/metrics").unwrap().text();
    assert!(metrics.contains("\nheadwater_tls_certificate_expiry_timestamp_seconds "), "{metrics}");
    let doctor = first.run_command(&["doctor"], &[]).unwrap();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains(&fingerprint));

    first.process().signal(Signal::SIGTERM);
    assert_eq!(first.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    let second = Daemon::start_in(Options::default(), folder.path()).unwrap();
    let at = second.wait_endpoints(Some(at.pid)).unwrap();
    assert_eq!(at.self_signed_fingerprint, Some(fingerprint.clone()));
    assert_eq!(get("localhost", &at).status, 200);

    // A damaged file does not stop the node.
    second.process().signal(Signal::SIGTERM);
    second.process().wait_exit(WAIT_TIMEOUT).unwrap();
    std::fs::write(&file, "damaged").unwrap();
    let third = Daemon::start_in(Options::default(), folder.path()).unwrap();
    third.process().wait_line("the self-signed certificate is damaged, replacing it").unwrap();
    let at = third.wait_endpoints(Some(at.pid)).unwrap();
    assert!(at.self_signed_fingerprint.as_ref().is_some_and(|replaced| *replaced != fingerprint));
    assert_eq!(get("localhost", &at).status, 200);
}

#[test]
fn configured_certificate_is_used_with_hsts_and_one_that_cannot_be_read_is_an_error() {
    let folder = TempDir::new().unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = folder.write("certificate.pem", pair.cert.pem()).unwrap();
    let key = folder.write("key.pem", pair.signing_key.serialize_pem()).unwrap();
    let with_key = |key: PathBuf| {
        Options::with(|c| {
            c.tls.certificate_file = Some(certificate.clone());
            c.tls.key_file = Some(key);
        })
    };
    let engine = Engine::start(with_key(key)).unwrap();
    let at = engine.endpoints();
    assert_eq!(at.self_signed_fingerprint, None);
    assert!(!engine.data_dir().join("self-signed.pem").exists());
    let Some(curl) = Curl::trusting(&certificate) else { return };
    let page = curl.get(&format!("https://localhost:{}/", https_port(at)));
    assert_eq!((page.status, page.header("strict-transport-security")), (200, Some("max-age=31536000")));
    assert_eq!(engine.get("/").unwrap().header("strict-transport-security"), None);
    let (code, lines) = Engine::start_to_fail(with_key(folder.path().join("missing.pem"))).unwrap();
    assert_eq!(code, Some(78), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("missing.pem")), "{lines:?}");
}

#[test]
fn login_requires_https_unless_the_browser_is_on_the_same_machine() {
    let daemon = Daemon::start(Options::default()).unwrap();
    let password = field(&daemon.process().wait_line("administrator created").unwrap(), "password");
    daemon.process().wait_line("node ready").unwrap();
    let at = daemon.wait_endpoints(None).unwrap();
    let (http, https) = (at.http.unwrap(), format!("https://localhost:{}", https_port(&at)));

    // What an untrusted proxy on this machine sends for a client elsewhere.
    let headers = [("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")];
    let refused = log_in(http, &password, &headers);
    let body: Value = refused.json().unwrap();
    assert_eq!((refused.status, body["error"].as_str()), (403, Some("https_required")));
    let url = format!("https://{}:{}/", http.ip(), https_port(&at));
    assert!(body["message"].as_str().unwrap().contains(&url), "{body}");
    assert_eq!(refused.header("set-cookie"), None);
    let session: Value = http::request(http, "GET", SESSION_PATH, &headers, b"").unwrap().json().unwrap();
    assert_eq!((&session["may_log_in"], &session["https_url"]), (&json!(false), &json!(url)));

    let local = log_in(http, &password, &[]);
    let cookie = local.header("set-cookie").unwrap();
    assert!(local.status == 200 && cookie.starts_with("headwater_session=") && !cookie.contains("Secure"), "{cookie}");

    let Some(curl) = Curl::trusting(&daemon.data_dir().join("self-signed.pem")) else { return };
    let jar = daemon.data_dir().join("cookies");
    let jar = ["--cookie", jar.to_str().unwrap(), "--cookie-jar", jar.to_str().unwrap()];
    let body = json!({ "password": password }).to_string();
    let post = ["--header", "content-type: application/json", "--data-binary", body.as_str()];
    let session_url = format!("{https}{SESSION_PATH}");
    let response = curl.request(&session_url, &[&jar[..], &post].concat()).unwrap();
    let cookie = response.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-headwater_session=") && cookie.ends_with("; Secure"), "{cookie}");
    let session: Value = curl.request(&session_url, &jar).unwrap().json().unwrap();
    assert_eq!(session["administrator"], true, "{session}");
    // A page of this origin may use the session.
    let node = format!("{https}/rest/v2/cluster/node/nobody");
    let origin = format!("origin: {https}");
    let delete = curl.request(&node, &[&jar[..], &["--request", "DELETE", "--header", &origin]].concat()).unwrap();
    assert_eq!(delete.status, 404, "{}", delete.text());
}

#[test]
fn node_without_plain_http_and_rtmp_is_ready_and_can_be_inspected() {
    let daemon = Daemon::start(Options::with(|c| (c.http.listen, c.rtmp.listen) = (Listen::Off, Listen::Off))).unwrap();
    let line = daemon.process().wait_line("node ready").unwrap();
    assert!(line.contains("http=off") && line.contains("rtmp=off"), "{line}");
    let at = daemon.wait_endpoints(None).unwrap();
    assert_eq!((at.http, at.rtmp, at.rtmps), (None, None, None));
    let readiness: Value = http::get(at.health, "/readyz").unwrap().json().unwrap();
    let checks = readiness["checks"].as_object().unwrap();
    assert!(readiness["ready"] == true && checks["https"] == "ok", "{readiness}");
    assert!(["http", "rtmp", "rtmps", "loopback"].iter().all(|name| !checks.contains_key(*name)), "{readiness}");

    // The commands ask the engine over HTTPS.
    let run = |arguments: &[&str]| {
        let output = daemon.run_command(arguments, &[]).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {} {}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    let nodes: Value = serde_json::from_str(&run(&["nodes", "--json"])).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 1, "{nodes}");
    assert_eq!(run(&["streams", "--json"]).trim(), "[]");
    let ports = run(&["doctor"]);
    assert!(ports.contains(&format!("https {}", https_port(&at))), "{ports}");
    assert!(run(&["plan"]).lines().any(|line| line.split_whitespace().eq(["rtmp", "off"])));

    let Some(curl) = Curl::trusting(&daemon.data_dir().join("self-signed.pem")) else { return };
    let node: Value = curl.get(&format!("https://localhost:{}/rest/v2/node", https_port(&at))).json().unwrap();
    assert_eq!((&node["rtmp_port"], &node["https_port"]), (&Value::Null, &json!(https_port(&at))));
}
