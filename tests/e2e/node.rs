//! A whole node as `headwaterd run` starts it: start, engine restarts, shutdown, and the reasons of
//! failed starts.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use headwater_api::Config;
use headwater_api::config::RegistryKind;
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Options, program_path, read_endpoints, wait_status};
use headwater_tests::http;
use headwater_tests::process::Process;
use headwater_tests::publish::{Source, ffmpeg_command, start_ffmpeg};
use headwater_tests::temp::TempDir;
use headwater_tests::wait::{self, WAIT_TIMEOUT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Refuses connections to the metadata service at once, wherever the test runs.
const NO_METADATA_SERVICE: &str = "metadata.endpoint = \"127.0.0.1:1\"\n";

/// Runs `headwaterd` to its end.
fn run_headwaterd(arguments: &[&str]) -> Output {
    Command::new(program_path("headwaterd").unwrap()).args(arguments).env_remove("NOTIFY_SOCKET").output().unwrap()
}

/// Runs `headwaterd run` with this file to its end; returns the exit code and the last line.
fn run_refused(folder: &TempDir, file: &str) -> (Option<i32>, String) {
    let path = folder.write("node.toml", file).unwrap();
    let output = run_headwaterd(&["run", "--config", path.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text.lines().last().unwrap_or_default().to_owned())
}

/// True while the process exists and is not a zombie.
fn is_process_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

fn send_signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// Starts ffmpeg as a player that exits with 0 once it has decoded a second of video.
fn start_player(url: &str) -> Option<Process> {
    let mut command = ffmpeg_command()?;
    command.args(["-i", url, "-frames:v", "25", "-f", "null", "-"]);
    Some(Process::start(&mut command).unwrap())
}

#[test]
fn systemd_receives_ready_watchdog_and_stopping_notifications() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let notify_socket = UnixDatagram::bind(&path).unwrap();
    notify_socket.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let mut received = Vec::new();
    let mut wait_for = |word: &str| {
        let mut bytes = [0; 1_024];
        while !received.iter().any(|h: &String| h.lines().any(|line| line == word)) {
            let count = notify_socket.recv(&mut bytes).unwrap_or_else(|e| panic!("{word}: {e}; received {received:?}"));
            received.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
        }
        std::mem::take(&mut received)
    };
    let environment =
        vec![("NOTIFY_SOCKET", path.to_string_lossy().into_owned()), ("WATCHDOG_USEC", "1000000".to_owned())];
    let daemon = Daemon::start(Options { environment, ..Options::default() }).unwrap();
    wait_for("READY=1");
    let at = daemon.wait_endpoints(None).unwrap();
    assert_eq!(http::get(at.health, "/readyz").unwrap().status, 200);
    wait_for("WATCHDOG=1");
    wait_for("WATCHDOG=1");
    daemon.signal(Signal::SIGTERM);
    let last = wait_for("STOPPING=1");
    assert!(!last.iter().any(|h| h.contains("READY=1")), "{last:?}");
    assert!(daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().success());
}

#[test]
fn node_becomes_ready_and_serves_its_pages() {
    let daemon = Daemon::start(Options::default()).unwrap();
    let first = daemon.process().wait_line("headwaterd starting").unwrap();
    for field in ["version=", "commit=", "role=standalone"] {
        assert!(first.contains(field), "{first}");
    }
    assert_eq!(daemon.process().lines()[0], first);
    daemon.process().wait_line("node ready").unwrap();
    let at = daemon.wait_endpoints(None).unwrap();
    assert_eq!(http::get(at.health, "/readyz").unwrap().status, 200);
    assert_eq!(http::get(at.health, "/livez").unwrap().status, 200);
    for (path, status) in [("/", 200), ("/live/play.html", 200), ("/LiveApp/play.html", 200), ("/nope/play.html", 404)]
    {
        assert_eq!(http::get(at.http.unwrap(), path).unwrap().status, status, "{path}");
    }
}

#[test]
fn node_is_not_reported_ready_while_its_engine_is_not() {
    // The publisher of the loopback check takes the only connection slot, and its player is
    // refused.
    let daemon = Daemon::start(Options::with(|c| c.rtmp.max_connections = 1.try_into().unwrap())).unwrap();
    let at = daemon.wait_endpoints(None).unwrap();
    // The daemon polls as often as this test does.
    let mut responses = 0;
    wait::until("forty responses", || {
        assert_eq!(http::get(at.health, "/readyz").unwrap().status, 503);
        responses += 1;
        (responses == 40).then_some(())
    })
    .unwrap();
    assert!(!daemon.process().lines().iter().any(|line| line.contains("node ready")));
}

#[test]
fn killed_engine_restarts_and_accepts_a_publisher_and_a_player() {
    let daemon = Daemon::start(Options::default()).unwrap();
    let before = daemon.wait_endpoints(None).unwrap();
    let url = format!("rtmp://{}/live/a", before.rtmp.unwrap());
    let Some(publisher) = start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    wait_status(before.http.unwrap(), "live/a", "video", |s| s.video.is_some()).unwrap();

    send_signal(before.pid, Signal::SIGKILL);
    let line = daemon.process().wait_line("engine exited unexpectedly").unwrap();
    assert!(line.contains("signal: 9"), "{line}");
    assert!(!publisher.wait_exit(WAIT_TIMEOUT).unwrap().success());

    let after = daemon.wait_endpoints(Some(before.pid)).unwrap();
    let url = format!("rtmp://{}/live/a", after.rtmp.unwrap());
    let _publisher = start_ffmpeg(&Source::default(), &url).unwrap().unwrap();
    wait_status(after.http.unwrap(), "live/a", "video", |s| s.video.is_some()).unwrap();
    assert!(start_player(&url).unwrap().wait_exit(WAIT_TIMEOUT).unwrap().success());
    assert_eq!(http::get(after.health, "/readyz").unwrap().status, 200);
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure that was measured")]
fn hanging_engine_is_detected_and_replaced() {
    /// Twice the expected time: five probes with an interval of 2 s and a time-out of 4 s each, and
    /// the start of the next engine.
    const REPLACEMENT_TIMEOUT: Duration = Duration::from_secs(60);
    let daemon = Daemon::start(Options::default()).unwrap();
    daemon.process().wait_line("node ready").unwrap();
    let before = daemon.wait_endpoints(None).unwrap().pid;
    send_signal(before, Signal::SIGSTOP);
    let started = Instant::now();
    let after = wait::until_within(REPLACEMENT_TIMEOUT, "another engine", || {
        let at = read_endpoints(daemon.data_dir()).ok().filter(|at| at.pid != before)?;
        (http::get(at.health, "/readyz").ok()?.status == 200).then_some(at)
    })
    .unwrap();
    println!("hanging engine replaced after {} ms", started.elapsed().as_millis());
    let line = daemon.process().wait_line("killing the engine").unwrap();
    assert!(line.contains("hangs: "), "{line}");
    assert!(!is_process_running(before));
    assert_eq!(http::get(after.health, "/livez").unwrap().status, 200);
}

#[test]
fn engine_ends_with_a_killed_daemon_and_the_next_daemon_starts_at_once() {
    let folder = TempDir::new().unwrap();
    let start = || Daemon::start_in(Options::default(), folder.path()).unwrap();
    let daemon = start();
    let engine = daemon.wait_endpoints(None).unwrap().pid;
    assert!(is_process_running(engine));
    daemon.process().signal(Signal::SIGKILL);
    let next = start();
    wait::until("the end of the orphaned engine", || (!is_process_running(engine)).then_some(())).unwrap();
    next.process().wait_line("node ready").unwrap();
}

#[test]
fn sigterm_drains_and_exits_with_0() {
    let daemon = Daemon::start(Options::default()).unwrap();
    daemon.process().wait_line("node ready").unwrap();
    let engine = daemon.wait_endpoints(None).unwrap().pid;
    daemon.process().signal(Signal::SIGTERM);
    assert_eq!(daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    assert!(daemon.process().lines().iter().any(|l| l.contains("engine ended") && !l.contains("by itself")));
    assert!(!is_process_running(engine));
    assert!(!daemon.data_dir().join("engine.json").exists());
}

#[test]
fn second_sigterm_stops_at_once_despite_connected_clients() {
    // A stopped engine cannot drain, so that the drain would take a minute.
    let daemon = Daemon::start(Options::with(|c| c.node.drain_ms = 60_000.try_into().unwrap())).unwrap();
    let at = daemon.wait_endpoints(None).unwrap();
    let url = format!("rtmp://{}/live/a", at.rtmp.unwrap());
    let Some(_publisher) = start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    wait_status(at.http.unwrap(), "live/a", "video", |s| s.video.is_some()).unwrap();
    send_signal(at.pid, Signal::SIGSTOP); // so that it cannot drain
    daemon.process().signal(Signal::SIGTERM);
    daemon.process().wait_line("draining; a second signal stops at once").unwrap();
    assert!(daemon.process().is_running());
    daemon.process().signal(Signal::SIGTERM);
    assert_eq!(daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
    assert!(!is_process_running(at.pid));
}

#[test]
fn ctrl_c_drains_like_sigterm() {
    let daemon = Daemon::start(Options::default()).unwrap();
    daemon.process().wait_line("node ready").unwrap();
    daemon.process().signal(Signal::SIGINT);
    assert_eq!(daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(0));
}

#[test]
fn port_in_use_exits_with_69_and_names_the_port() {
    let folder = TempDir::new().unwrap();
    let secret = folder.write("secret", "the secret of this test's cluster").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    // WebRTC listens on all addresses; only its port is configurable.
    let taken_udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let udp = taken_udp.local_addr().unwrap().port();
    let every: SocketAddr = (Ipv6Addr::UNSPECIFIED, udp).into();
    let check = |what: &str, address: SocketAddr, change: &dyn Fn(&mut Config)| {
        let daemon = Daemon::start(Options::with(change)).unwrap();
        assert_eq!(daemon.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(69), "{what}");
        let last = daemon.process().wait_line("headwaterd stopped").unwrap();
        let expected = format!(
            "err=the engine could not start: could not listen on {address} for {what}: Address already in use (os error 98)"
        );
        assert!(last.ends_with(&expected), "{last}");
    };
    check("http", at, &|c| c.http.listen = at.into());
    check("https", at, &|c| c.http.tls_listen = at.into());
    check("rtmp", at, &|c| c.rtmp.listen = at.into());
    check("webrtc", every, &|c| c.webrtc.port = udp);
    check("health", at, &|c| c.health.listen = at);
    check("relay", at, &|c| {
        c.relay.secret_file = Some(secret.clone());
        c.relay.listen = at;
    });
}

#[test]
fn second_node_in_the_same_data_folder_exits_and_harms_nothing() {
    let folder = TempDir::new().unwrap();
    let first = Daemon::start_in(Options::default(), folder.path()).unwrap();
    first.process().wait_line("node ready").unwrap();
    let at = first.wait_endpoints(None).unwrap();
    let second = Daemon::start_in(Options::default(), folder.path()).unwrap();
    assert_eq!(second.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(69));
    second.process().wait_line("is a node already running with this data folder?").unwrap();
    assert_eq!(first.wait_endpoints(None).unwrap(), at);
    assert_eq!(http::get(at.health, "/readyz").unwrap().status, 200);
}

#[test]
fn second_node_exits_even_if_the_registry_is_shared_and_unreachable() {
    let folder = TempDir::new().unwrap();
    let uri = folder.write("uri", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200").unwrap();
    let options =
        || Options::with(|c| (c.registry.kind, c.registry.uri_file) = (RegistryKind::MongoDb, Some(uri.clone())));
    let first = Daemon::start_in(options(), folder.path()).unwrap();
    first.process().wait_line("out of service").unwrap();
    let second = Daemon::start_in(options(), folder.path()).unwrap();
    assert_eq!(second.process().wait_exit(WAIT_TIMEOUT).unwrap().code(), Some(69));
    second.process().wait_line("is a node already running with this data folder?").unwrap();
    assert!(first.process().is_running());
}

#[test]
fn unreadable_configuration_file_exits_with_78_and_names_the_file() {
    let folder = TempDir::new().unwrap();
    let check = |path: &Path, reason: &str| {
        let output =
            Command::new(program_path("headwaterd").unwrap()).args(["run", "--config"]).arg(path).output().unwrap();
        let lines = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), lines.lines().count()), (Some(78), 1), "{lines}");
        assert!(lines.contains(&format!("could not read {}: {reason}", path.display())), "{lines}");
    };
    check(&folder.path().join("missing.toml"), "No such file or directory");
    check(folder.path(), "Is a directory");
}

#[test]
fn invalid_configuration_exits_with_78_and_names_line_and_key() {
    let folder = TempDir::new().unwrap();
    let check = |file: &str, expected: &str| {
        let (code, sentence) = run_refused(&folder, file);
        assert_eq!(code, Some(78), "{file:?}: {sentence}");
        assert!(sentence.contains("headwaterd stopped err=") && sentence.contains(expected), "{file:?}: {sentence}");
    };
    check("[hls]\npart_secs = 1\n", "node.toml, line 2, `part_secs = 1`: unknown field `part_secs`");
    check("[hls]\npart_ms = 0\n", "node.toml, line 2, `part_ms = 0`: invalid value");
    check("[node]\nrole = \"king\"\n", "node.toml, line 2, `role = \"king\"`: unknown variant");
    check(
        &format!("{NO_METADATA_SERVICE}[node]\nrole = \"edge\"\n"),
        "[node] role is \"edge\", which needs a shared registry",
    );
    check(
        &format!("{NO_METADATA_SERVICE}[node]\ndata_dir = \"/dev/null/x\"\n"),
        "data folder /dev/null/x cannot be written",
    );
    let certificate = format!(
        "{NO_METADATA_SERVICE}[node]\ndata_dir = {:?}\n[tls]\ncertificate_file = \"/nonexistent.pem\"\nkey_file = \"/nonexistent.key\"\n",
        folder.path().join("data")
    );
    check(&certificate, "the engine rejects its configuration: [tls] cannot be used");
    let missing = run_headwaterd(&["run", "--config", "/nonexistent.toml"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("could not read /nonexistent.toml"));
}

#[test]
fn missing_engine_exits_with_78_and_names_the_path() {
    let folder = TempDir::new().unwrap();
    let file = folder
        .write("node.toml", format!("{NO_METADATA_SERVICE}[node]\ndata_dir = {:?}\n", folder.path().join("data")))
        .unwrap();
    let output = run_headwaterd(&["run", "--config", file.to_str().unwrap(), "--engine", "/nonexistent/engine"]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("could not run the engine /nonexistent/engine; --engine sets its path"), "{text}");
}

#[test]
fn invalid_argument_exits_with_64() {
    for arguments in [&["run", "--colour"][..], &["fly"], &[], &["run", "--config"]] {
        assert_eq!(run_headwaterd(arguments).status.code(), Some(64), "{arguments:?}");
    }
    assert_eq!(run_headwaterd(&["--version"]).status.code(), Some(0));
}

#[test]
fn plan_prints_facts_and_plan_and_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let data_dir = folder.path().join("data");
    let text = format!("{NO_METADATA_SERVICE}[node]\nid = \"left\"\ndata_dir = {data_dir:?}\n");
    let file = folder.write("node.toml", text).unwrap();
    let file = file.to_str().unwrap();
    let human = run_headwaterd(&["plan", "--config", file]);
    assert!(human.status.success());
    let human = String::from_utf8(human.stdout).unwrap();
    for line in
        ["role          standalone (default)", "node          left (configuration file)", "rtmp          [::]:1935"]
    {
        assert!(human.contains(line), "{human}");
    }
    let json = run_headwaterd(&["plan", "--config", file, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["plan"]["engine"]["node"]["id"], "left");
    assert!(json["facts"]["host_name"].is_string());
    assert!(!Path::new(&data_dir).exists());
}

#[test]
fn example_configuration_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/headwater.example.toml");
    let output = run_headwaterd(&["plan", "--config", example]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.signal(), None);
}
