//! `/readyz`: each fault makes a node not ready within ten seconds, and its end makes it ready
//! again.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use headwater_api::control::EngineStatus;
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Engine, Options, wait_status};
use headwater_tests::http;
use headwater_tests::publish::{Source, start_ffmpeg};
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::temp::TempDir;
use headwater_tests::{tools, wait};
use nix::sys::signal::Signal;
use serde::Deserialize;

/// How long a fault, or its end, may remain undetected.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Body of an audio message: an AudioSpecificConfig for AAC-LC, 44.1 kHz, mono.
const AAC_HEADER: [u8; 4] = [0xaf, 0, 0x12, 0x08];

#[derive(Debug, Deserialize)]
struct Readiness {
    ready: bool,
    checks: BTreeMap<String, String>,
}

fn fetch_readiness(health: SocketAddr) -> Option<Readiness> {
    let response = http::get(health, "/readyz").ok()?;
    let readiness: Readiness = serde_json::from_slice(response.text().as_bytes()).unwrap();
    assert_eq!(readiness.ready, response.status == 200);
    Some(readiness)
}

/// Waits until exactly this check fails and its message contains `sentence`, or until none fails.
#[expect(clippy::print_stdout, reason = "the figure that was measured")]
pub(crate) fn wait_failing_check(health: SocketAddr, check: Option<&str>, sentence: &str) {
    let started = Instant::now();
    let what = check.map_or("all checks to pass".to_owned(), |name| format!("only {name} to fail"));
    wait::until_within(DETECTION_TIMEOUT, &what, || {
        let readiness = fetch_readiness(health)?;
        let mut failing = readiness.checks.iter().filter(|(_, message)| *message != "ok");
        let (first, second) = (failing.next(), failing.next());
        match (check, first, second) {
            (None, None, _) => readiness.ready.then_some(()),
            (Some(name), Some((found, message)), None) => (name == found && message.contains(sentence)).then_some(()),
            _ => None,
        }
    })
    .unwrap();
    println!("{what}: {} ms", started.elapsed().as_millis());
}

fn free_mb(folder: &TempDir) -> u64 {
    let found = nix::sys::statvfs::statvfs(folder.path()).unwrap();
    found.blocks_available() * found.fragment_size() / 1_000_000
}

#[test]
fn disk_and_daemon_faults_change_readyz_within_ten_seconds() {
    type Act<'a> = Box<dyn Fn() + 'a>;
    const MARGIN_MB: u64 = 4_000;
    let folder = TempDir::new().unwrap();
    let least = free_mb(&folder).saturating_sub(MARGIN_MB);
    let daemon =
        Daemon::start_in(Options::with(|c| c.limits.min_free_mb = least.try_into().unwrap()), folder.path()).unwrap();
    daemon.process().wait_line("node ready").unwrap();
    let health = daemon.wait_endpoints(None).unwrap().health;
    let large_file = folder.path().join("hog");
    let fill = || {
        let size = format!("{}M", 2 * MARGIN_MB);
        assert!(Command::new("fallocate").args(["-l", &size]).arg(&large_file).status().unwrap().success());
    };
    let free = || std::fs::remove_file(&large_file).unwrap();
    // Cluster faults (lease, clock): cluster.rs and clock.rs. Workers: whep.rs. Listeners: below.
    let faults: [(&str, &str, Act<'_>, Act<'_>); 2] = [
        ("disk", "MB are free in", Box::new(fill), Box::new(free)),
        (
            "daemon",
            "has sent no report for",
            Box::new(|| daemon.process().signal(Signal::SIGSTOP)),
            Box::new(|| daemon.process().signal(Signal::SIGCONT)),
        ),
    ];
    wait_failing_check(health, None, "");
    let http = daemon.wait_endpoints(None).unwrap().http.unwrap();
    for (check, sentence, inject, repair) in &faults {
        wait_listed_readiness(http, true);
        inject();
        wait_failing_check(health, Some(check), sentence);
        wait_listed_readiness(http, false);
        repair();
        wait_failing_check(health, None, "");
    }
}

/// Waits until the list of nodes, which the dashboard shows, has this readiness for this node.
fn wait_listed_readiness(http: SocketAddr, ready: bool) {
    wait::until_within(DETECTION_TIMEOUT, "the node's entry", || {
        let nodes: serde_json::Value = http::get(http, "/rest/v2/cluster/nodes/0/10").ok()?.json().ok()?;
        (nodes[0]["ready"] == ready).then_some(())
    })
    .unwrap();
}

/// Starts an engine with every kind of listener.
fn with_all_listeners(folder: &TempDir, change: impl FnOnce(&mut headwater_api::Config)) -> Engine {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = folder.write("certificate.pem", pair.cert.pem()).unwrap();
    let key = folder.write("key.pem", pair.signing_key.serialize_pem()).unwrap();
    let secret = folder.write("secret", "the secret of this test's cluster").unwrap();
    Engine::start(Options::with(|c| {
        c.tls.certificate_file = Some(certificate);
        c.tls.key_file = Some(key);
        c.relay.listen = "127.0.0.1:0".parse().unwrap();
        c.relay.secret_file = Some(secret);
        change(c);
    }))
    .unwrap()
}

/// A connection to the health listener, opened before the fault so that the engine needs no further
/// file descriptor for it.
struct HealthConnection(TcpStream);

impl HealthConnection {
    fn open(health: SocketAddr) -> Self {
        let stream = TcpStream::connect(health).unwrap();
        stream.set_read_timeout(Some(DETECTION_TIMEOUT)).unwrap();
        Self(stream)
    }

    fn readiness(&mut self) -> Readiness {
        self.0.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let (mut response, mut byte) = (Vec::new(), [0]);
        while !response.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).unwrap();
            response.push(byte[0]);
        }
        let head = String::from_utf8(response).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }
}

#[test]
fn engine_without_free_file_descriptors_is_not_ready() {
    let folder = TempDir::new().unwrap();
    let engine = with_all_listeners(&folder, |_| {});
    wait_failing_check(engine.health(), None, "");
    let mut connection = HealthConnection::open(engine.health());
    let listeners = ["http", "https", "relay", "rtmp", "rtmps"];
    let limit = |soft: &str| {
        let pid = engine.process().pid().to_string();
        assert!(
            Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]).status().unwrap().success()
        );
    };
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", engine.process().pid())).unwrap();
    let before = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let before = before.split_whitespace().nth(3).unwrap();
    for check in listeners {
        assert_eq!(connection.readiness().checks[check], "ok", "{check}");
    }
    limit("8");
    wait::until_within(DETECTION_TIMEOUT, "the check of every listener to fail", || {
        let readiness = connection.readiness();
        (!readiness.ready && listeners.iter().all(|check| readiness.checks[*check].contains("open files")))
            .then_some(())
    })
    .unwrap();
    limit(before);
    wait_failing_check(engine.health(), None, "");
    assert_eq!(engine.panics(), Vec::<String>::new());
}

#[test]
fn full_listener_changes_readyz_within_ten_seconds() {
    const MAX_CONNECTIONS: usize = 4;
    let folder = TempDir::new().unwrap();
    let engine = with_all_listeners(&folder, |c| {
        c.rtmp.max_connections = MAX_CONNECTIONS.try_into().unwrap();
        c.relay.max_connections = MAX_CONNECTIONS.try_into().unwrap();
    });
    wait_failing_check(engine.health(), None, "");
    let at = engine.endpoints();
    // Silent connections are closed after a time-out, so new ones are opened until the checks fail.
    let mut open_connections = Vec::new();
    wait::until_within(DETECTION_TIMEOUT, "the checks of the full listener to fail", || {
        open_connections.extend((0..MAX_CONNECTIONS).map(|_| TcpStream::connect(at.rtmp.unwrap()).unwrap()));
        let readiness = fetch_readiness(engine.health())?;
        let failing: Vec<_> = readiness.checks.iter().filter(|(_, message)| *message != "ok").collect();
        (failing.iter().map(|(name, _)| name.as_str()).eq(["rtmp", "rtmps"])).then_some(())
    })
    .unwrap();
    drop(open_connections);
    wait_failing_check(engine.health(), None, "");
    // Silent connections do not fill the relay, which authenticates a peer before it takes a place.
    let _silent: Vec<_> = (0..200).map(|_| TcpStream::connect(at.relay.unwrap()).unwrap()).collect();
    wait_failing_check(engine.health(), None, "");
}

#[test]
fn node_whose_loopback_check_cannot_play_is_not_ready() {
    // The publisher of the loopback check takes the only connection slot, and its player is
    // refused.
    let engine = Engine::start(Options::with(|c| c.rtmp.max_connections = 1.try_into().unwrap())).unwrap();
    wait::until("the loopback check to fail", || {
        let readiness = fetch_readiness(engine.health())?;
        readiness.checks["loopback"].contains("has not worked yet: ").then_some(())
    })
    .unwrap();
}

#[test]
fn node_is_not_ready_until_its_loopback_check_succeeds() {
    // Packets of 61 to 1,500 bytes are dropped. Those of the RTMP handshake are longer and pass:
    // the port answers, but nothing can be published.
    const RULES: &str = "add table inet walls; add chain inet walls in { type filter hook input priority 0; }; \
                         add rule inet walls in tcp dport 1935 meta length 61-1500 drop";
    let script = format!("ip link set lo up && nft '{RULES}' && exec \"$@\"");
    let command_prefix =
        ["unshare", "--user", "--map-root-user", "--net", "--", "sh", "-c", &script, "sh"].map(str::to_owned);
    let (Some(_), Some(_)) = (tools::find_program("nft"), tools::find_program("curl")) else { return };
    if !Command::new(&command_prefix[0])
        .args(&command_prefix[1..])
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        return tools::skip_missing("a network namespace cannot be created here");
    }
    let options = Options::with(|c| c.rtmp.listen.set_port(1935));
    let engine = Engine::start(Options { command_prefix: command_prefix.to_vec(), ..options }).unwrap();
    let pid = engine.process().pid().to_string();
    let within = |words: &[&str]| {
        let enter = ["--target", &pid, "--user", "--net", "--preserve-credentials", "--"];
        Command::new("nsenter").args(enter).args(words).output().unwrap()
    };
    let url = format!("http://{}/readyz", engine.health());
    let readiness = || serde_json::from_slice::<Readiness>(&within(&["curl", "-s", "-m", "5", &url]).stdout).ok();
    wait::until_within(DETECTION_TIMEOUT, "only the loopback check to fail", || {
        let checks = readiness().filter(|r| !r.ready)?.checks;
        let failing: Vec<_> = checks.iter().filter(|(_, message)| *message != "ok").collect();
        let [(name, message)] = failing[..] else { return None };
        (name == "loopback" && message.contains("has not worked yet: no audio came back within")).then_some(())
    })
    .unwrap();
    assert!(within(&["nft", "delete table inet walls"]).status.success());
    wait::until_within(DETECTION_TIMEOUT, "the node to be ready", || readiness()?.ready.then_some(())).unwrap();
}

/// Name of the app of the loopback check. It is random and appears only in the debug log.
fn loopback_app(engine: &Engine) -> String {
    let line = engine.process().wait_line("stream=loopback-").unwrap();
    let (_, name) = line.split_once("stream=").unwrap();
    name.split('/').next().unwrap().to_owned()
}

fn with_debug_log(options: Options) -> Options {
    Options { log: "debug", ..options }
}

/// Checks that no interface lists, mentions or serves a stream of this app.
fn check_hidden(engine: &Engine, app: &str, id: &str) {
    let text = |at: SocketAddr, path: &str| http::get(at, path).unwrap().text();
    for path in ["/rest/v2/streams", "/rest/v2/cluster/streams/0/50", "/live/rest/v2/broadcasts/list/0/50"] {
        assert_eq!(text(engine.http(), path), "[]", "{path}");
    }
    let status: EngineStatus = serde_json::from_str(&text(engine.health(), "/status")).unwrap();
    assert_eq!((status.load.streams, status.load.viewers, status.watched.len()), (0, 0, 0));
    for (at, path) in [(engine.health(), "/metrics"), (engine.health(), "/status"), (engine.http(), "/")] {
        assert!(!text(at, path).contains(app), "{path} contains the name of the loopback app");
    }
    for path in [
        format!("/rest/v2/streams/{app}/{id}"),
        format!("/{app}/rest/v2/broadcasts/{id}"),
        format!("/{app}/rest/v2/broadcasts/list/0/50"),
        format!("/{app}/streams/{id}.m3u8"),
        format!("/{app}/streams/{id}/playlist.m3u8"),
    ] {
        assert_eq!(http::get(engine.http(), &path).unwrap().status, 404, "{path}");
    }
    let offer = [("content-type", "application/sdp")];
    let response = http::request(engine.http(), "POST", &format!("/{app}/whep/{id}"), &offer, b"v=0\r\n").unwrap();
    assert_eq!(response.status, 404, "{}", response.text());
}

#[test]
fn loopback_stream_is_hidden_while_the_check_runs() {
    // Either the publisher of the check or this test takes the only connection slot: the check
    // never succeeds, and its app remains.
    let engine =
        Engine::start(with_debug_log(Options::with(|c| c.rtmp.max_connections = 1.try_into().unwrap()))).unwrap();
    let app = loopback_app(&engine);
    let mut publisher =
        wait::until("the connection slot", || RtmpClient::publisher_in(engine.rtmp(), &app, "proof").ok()).unwrap();
    // This test has the only slot, so that every track announced from now on is its own.
    let start = engine.process().line_count();
    publisher.send_audio(0, bytes::Bytes::from_static(&AAC_HEADER)).unwrap();
    engine.process().wait_line_from(start, "track announced").unwrap();
    check_hidden(&engine, &app, "proof");
    assert!(fetch_readiness(engine.health()).unwrap().checks["loopback"].contains("has not worked yet: "));
}

#[test]
fn loopback_app_is_removed_after_the_check() {
    let engine = Engine::start(with_debug_log(Options::default())).unwrap();
    wait_failing_check(engine.health(), None, "");
    let app = loopback_app(&engine);
    for id in ["proof", "another"] {
        check_hidden(&engine, &app, id);
        let refused = |peer: anyhow::Result<RtmpClient>| {
            let why = format!("{:#}", peer.unwrap_err());
            assert!(why.contains("There is no app of this name"), "{why}");
        };
        refused(RtmpClient::player_in(engine.rtmp(), &app, id));
        refused(RtmpClient::publisher_in(engine.rtmp(), &app, id));
    }
}

#[test]
fn loopback_check_is_not_logged_at_info() {
    let engine = Engine::start(Options::default()).unwrap();
    wait_failing_check(engine.health(), None, "");
    assert!(!engine.process().lines().iter().any(|l| l.contains("publish accepted") || l.contains("play accepted")));
}

#[test]
fn status_reports_streams_viewers_and_egress() {
    let engine = Engine::start(Options::default()).unwrap();
    let Some(_publisher) = start_ffmpeg(&Source::default(), &engine.rtmp_url("live/a")).unwrap() else { return };
    wait_status(engine.http(), "live/a", "video", |s| s.video.is_some()).unwrap();
    let mut player = headwater_tests::publish::ffmpeg_command().unwrap();
    player.args(["-i", &engine.rtmp_url("live/a"), "-f", "null", "-"]);
    let _player = headwater_tests::process::Process::start(&mut player).unwrap();
    let status = wait::until("one player and its egress", || {
        let response = http::get(engine.health(), "/status").ok()?;
        let status: EngineStatus = serde_json::from_slice(response.text().as_bytes()).unwrap();
        (status.load.viewers == 1 && status.load.egress_bps > 0).then_some(status)
    })
    .unwrap();
    assert_eq!((status.load.streams, status.load.viewers_by.rtmp, status.ready), (1, 1, true));
    assert_eq!(status.watched.iter().map(|w| (w.name.as_str(), w.viewers)).collect::<Vec<_>>(), [("live/a", 1)]);
}
