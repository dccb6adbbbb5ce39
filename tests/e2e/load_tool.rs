//! The load tool measures a few viewers of each kind for a second and writes machine-readable
//! output.
//!
//! These tests do not judge the figures; `headwater-load all` on a release build does.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use headwater_tests::engine::program_path;
use headwater_tests::process::Process;
use headwater_tests::temp::TempDir;
use headwater_tests::tools;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// Runs a command once; returns its measurements.
fn run_load_tool(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    run_load_tool_with_output(folder, arguments).0
}

/// Runs a command once; returns its measurements and its output lines.
fn run_load_tool_with_output(folder: &Path, arguments: &[&str]) -> (Vec<Value>, Vec<String>) {
    let file = folder.join("cases.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-load"));
    command.args(arguments).args(["--seconds", "1", "--rounds", "1", "--engine"]);
    command.arg(program_path("headwater-engine").unwrap()).arg("--json").arg(&file);
    // Its own process group: if the tool hangs, its servers are killed with it.
    let process = Process::start(command.process_group(0)).unwrap();
    let status = process.wait_exit(LOAD_TOOL_TIMEOUT).unwrap_or_else(|e| {
        let _ = killpg(Pid::from_raw(process.pid() as i32), Signal::SIGKILL);
        panic!("{arguments:?}: {e:#}")
    });
    let output = process.lines();
    assert!(status.success(), "{arguments:?}: {}", output.join("\n"));
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    (cases.as_array().unwrap().clone(), output)
}

/// Several times the duration of the longest run.
const LOAD_TOOL_TIMEOUT: Duration = Duration::from_secs(180);

/// Removes nginx from the expected servers if it is not installed. It must be installed in CI.
fn with_nginx_if_installed(servers: &[&'static str]) -> Vec<&'static str> {
    let is_here = ["/usr/sbin/nginx", "/usr/lib/nginx/modules/ngx_rtmp_module.so"].map(|f| Path::new(f).exists());
    if is_here != [true; 2] {
        tools::skip_missing("nginx with its RTMP module is not installed");
    }
    servers.iter().copied().filter(|s| *s != "nginx-rtmp" || is_here == [true; 2]).collect()
}

/// Rows of the table of promises: promise, measured value, limit, and whether it is kept. Lines of
/// the tool's standard error may arrive between them.
fn promise_rows(output: &[String]) -> Vec<Vec<String>> {
    let table = output.iter().skip_while(|l| !l.starts_with("| promise")).take_while(|l| !l.is_empty());
    let rows = table.filter(|l| l.starts_with('|')).skip(2);
    rows.map(|l| l.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn case_names(cases: &[Value]) -> Vec<&str> {
    cases.iter().map(|c| c["case"].as_str().unwrap()).collect()
}

fn case_servers(cases: &[Value]) -> Vec<&str> {
    cases.iter().map(|c| c["server"].as_str().unwrap()).collect()
}

/// Checks that the first case is the engine's, that no client failed, and that every value in
/// `counted` was measured.
fn check_engine_case<'a>(cases: &'a [Value], case: &str, count: u64, counted: &[&str]) -> &'a Value {
    let engine = &cases[0];
    assert_eq!((engine["case"].as_str(), engine["count"].as_u64()), (Some(case), Some(count)));
    assert_eq!(engine["failed"].as_u64(), Some(0), "{engine}");
    for counted in counted {
        assert!(engine[counted].as_f64().unwrap() > 0.0, "{counted} was not measured: {engine}");
    }
    check_quotient(engine, "cpu_seconds_per_gb", "bytes", 1e9);
    check_quotient(engine, "cpu_seconds_per_million_packets", "packets", 1e6);
    engine
}

/// Checks that the quotient is CPU seconds per `unit` of `divisor`, and `null` if the divisor is 0.
fn check_quotient(case: &Value, quotient: &str, divisor: &str, unit: f64) {
    let (cpu, divisor) = (case["cpu_seconds"].as_f64().unwrap(), case[divisor].as_f64().unwrap());
    let value = case.get(quotient).unwrap_or_else(|| panic!("no {quotient}: {case}")).as_f64();
    let is_close = |value: f64| (value * divisor / unit / cpu - 1.0).abs() < 1e-6;
    assert!(if divisor > 0.0 { value.is_some_and(is_close) } else { value.is_none() }, "{quotient}: {case}");
}

/// Checks that every case delivered data and used CPU time.
fn check_all_deliver(cases: &[Value]) {
    for case in cases {
        let counted = |what: &str| case[what].as_f64().unwrap() > 0.0;
        assert!(counted("packets") && counted("bytes") && counted("cpu_seconds"), "{case}");
        assert_eq!(case["failed"].as_u64(), Some(0), "{case}");
    }
}

#[test]
fn load_tool_counts_two_players_and_writes_one_json_object_per_case() {
    if tools::find_program("ffmpeg").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let arguments = ["rtmp", "--players", "2", "--merge-audio", "true,false"];
    let (cases, output) = run_load_tool_with_output(folder.path(), &arguments);
    let servers = with_nginx_if_installed(&["headwater", "nginx-rtmp", "floor"]);
    assert_eq!(case_servers(&cases), servers.repeat(2));
    let names = ["rtmp", "rtmp-unmerged"].map(|name| vec![name; servers.len()]);
    assert_eq!(case_names(&cases), names.concat());
    assert_eq!(output.iter().filter(|l| l.starts_with("| promise")).count(), 2, "a verdict for each setting");
    check_all_deliver(&cases);
    let engine = check_engine_case(&cases, "rtmp", 2, &["cpu_seconds", "bytes", "packets", "frames", "seconds"]);
    assert_eq!(engine["lost"].as_u64(), Some(0));
    assert!(engine["latency_ms"]["p50"].as_f64().unwrap() > 0.0 && engine["join_ms"]["p50"].as_f64().unwrap() > 0.0);
}

#[test]
fn load_tool_runs_enough_webrtc_viewers_for_rx_coalescing() {
    if tools::find_program("ffmpeg").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    // The last of them perform their handshake with a worker that coalesces receives.
    let cases = run_load_tool(folder.path(), &["whep", "--viewers", "70"]);
    assert_eq!(case_servers(&cases), ["headwater", "floor"]);
    let engine = check_engine_case(&cases, "whep", 70, &["cpu_seconds", "bytes", "packets", "frames", "kb_each"]);
    assert!(engine["latency_ms"]["p50"].as_f64().unwrap() > 0.0 && engine["join_ms"]["p50"].as_f64().unwrap() > 0.0);
}

#[test]
fn load_tool_measures_hls_llhls_and_ingest() {
    if tools::find_program("ffmpeg").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let fetched = ["cpu_seconds", "bytes", "packets"];
    let hls = run_load_tool(folder.path(), &["hls", "--viewers", "3"]);
    assert_eq!(case_servers(&hls), with_nginx_if_installed(&["headwater", "nginx-rtmp"]));
    check_all_deliver(&hls);
    assert_eq!(check_engine_case(&hls, "hls", 3, &fetched)["lost"].as_u64(), Some(0));
    let llhls = run_load_tool(folder.path(), &["llhls", "--viewers", "3"]);
    assert_eq!(check_engine_case(&llhls, "llhls", 3, &fetched)["lost"].as_u64(), Some(0));
    assert!(llhls[0]["latency_ms"]["p50"].as_f64().unwrap() > 0.0);
    let ingest = run_load_tool(folder.path(), &["ingest", "--publishers", "3"]);
    assert_eq!(case_servers(&ingest), with_nginx_if_installed(&["headwater", "nginx-rtmp"]));
    for turn in 0..ingest.len() {
        check_engine_case(&ingest[turn..], "ingest", 3, &["cpu_seconds", "bytes"]);
    }
}

#[test]
fn load_tool_compares_an_edge_with_a_single_node_and_checks_the_promises() {
    if tools::find_program("ffmpeg").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (cases, output) = run_load_tool_with_output(folder.path(), &["edge", "--viewers", "2", "--streams", "2"]);
    assert_eq!(
        case_names(&cases),
        ["rtmp", "rtmp", "cold-rtmp", "cold-rtmp", "whep", "whep", "cold-whep", "cold-whep"]
    );
    assert_eq!(case_servers(&cases), ["headwater", "edge"].repeat(4));
    for pair in cases.chunks(4) {
        check_all_deliver(&pair[..2]);
        for cold in &pair[2..] {
            assert!(cold["join_ms"]["p50"].as_f64().unwrap() > 0.0, "{cold}");
        }
    }
    let promises = promise_rows(&output);
    assert_eq!(promises.len(), 6, "{output:#?}");
    for promise in promises {
        assert!(["yes", "FALLS SHORT"].contains(&promise[3].as_str()), "{promise:?}");
    }
}

#[test]
fn load_tool_compares_viewers_that_need_a_token_with_those_of_an_open_app() {
    if tools::find_program("ffmpeg").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    for (arguments, case) in [(["hls", "--viewers", "3"], "hls"), (["join", "--times", "2"], "join-whep")] {
        let (cases, output) = run_load_tool_with_output(folder.path(), &[&arguments[..], &["--protected"]].concat());
        assert_eq!((case_names(&cases), case_servers(&cases)), (vec![case; 2], vec!["headwater", "protected"]));
        if case == "hls" {
            check_all_deliver(&cases);
        }
        let promises = promise_rows(&output);
        assert_eq!(promises.len(), 1, "{output:#?}");
        assert!(["yes", "FALLS SHORT"].contains(&promises[0][3].as_str()), "{promises:?}");
    }
}

#[test]
fn load_tool_measures_joining_a_stream_that_has_viewers() {
    if tools::find_program("ffmpeg").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let cases = run_load_tool(folder.path(), &["join", "--times", "2", "--no-peer"]);
    assert_eq!(case_names(&cases), ["join-rtmp", "join-whep"]);
    assert_eq!(case_servers(&cases), ["headwater", "headwater"]);
    for case in cases {
        assert_eq!(case["count"].as_u64(), Some(2));
        assert!(case["join_ms"]["p50"].as_f64().unwrap() > 0.0, "{case}");
    }
}

/// The cases of `all`, in order.
const ALL_CASES: [&str; 9] =
    ["whep", "rtmp", "rtmp-unmerged", "rtmp", "hls", "llhls", "ingest", "join-rtmp", "join-whep"];

#[test]
fn load_tool_checks_every_case_against_its_promise() {
    if tools::find_program("ffmpeg").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    // Without peers and floor, which other tests cover, because this run is long.
    let (cases, output) =
        run_load_tool_with_output(folder.path(), &["all", "--shrink", "50", "--no-peer", "--no-floor"]);
    assert_eq!(case_names(&cases), ALL_CASES);
    check_all_deliver(&cases[..6]);
    let promises = promise_rows(&output);
    assert_eq!(promises.len(), 13, "{output:#?}");
    for promise in promises {
        // Promises relative to another server have no figure here.
        let kept = if promise[2].contains(" x ") { &["-"][..] } else { &["yes", "FALLS SHORT"] };
        assert!(kept.contains(&promise[3].as_str()), "{promise:?}");
    }
}

#[test]
fn load_tool_plots_the_cost_by_number_of_viewers() {
    if tools::find_program("ffmpeg").is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("curves");
    let cases = run_load_tool(
        folder.path(),
        &["curve", "rtmp", "--counts", "1,3", "--no-peer", "--out", out.to_str().unwrap()],
    );
    assert_eq!(case_servers(&cases), ["headwater", "floor", "headwater", "floor"]);
    let table = std::fs::read_to_string(out.join("curve-rtmp.csv")).unwrap();
    let lines: Vec<_> = table.lines().skip(1).map(|line| line.split(',').take(2).collect::<Vec<_>>()).collect();
    assert_eq!(lines, [["1", "headwater"], ["3", "headwater"], ["1", "floor"], ["3", "floor"]]);
    let plot = std::fs::read_to_string(out.join("curve-rtmp.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"), "{plot}");
    assert_eq!(plot.matches("<polyline").count(), 2, "{plot}");
}
