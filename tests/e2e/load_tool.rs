//! The load tool measures: a few viewers of each kind for a second, and what it writes can be read by a machine.
//!
//! Whether the figures are good is for `headwater-load all` on a release build, never for a test.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use headwater_tests::engine::program;
use headwater_tests::process::Process;
use headwater_tests::temp::Folder;
use headwater_tests::tools;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// One turn of a command; its measurements.
fn measured(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    measured_and_said(folder, arguments).0
}

/// One turn of a command; its measurements, and what it printed.
fn measured_and_said(folder: &Path, arguments: &[&str]) -> (Vec<Value>, Vec<String>) {
    let file = folder.join("cases.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-load"));
    command.args(arguments).args(["--seconds", "1", "--rounds", "1", "--engine"]);
    command.arg(program("headwater-engine").unwrap()).arg("--json").arg(&file);
    // A group of its own: if the tool hangs, its servers end with it.
    let process = Process::start(command.process_group(0)).unwrap();
    let status = process.exit(BOUND).unwrap_or_else(|e| {
        let _ = killpg(Pid::from_raw(process.pid() as i32), Signal::SIGKILL);
        panic!("{arguments:?}: {e:#}")
    });
    let said = process.lines();
    assert!(status.success(), "{arguments:?}: {}", said.join("\n"));
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    (cases.as_array().unwrap().clone(), said)
}

/// Several times what the longest of them takes.
const BOUND: Duration = Duration::from_secs(180);

/// These servers, but nginx only where it is: in CI it must be.
fn with_peer(servers: &[&'static str]) -> Vec<&'static str> {
    let is_here = ["/usr/sbin/nginx", "/usr/lib/nginx/modules/ngx_rtmp_module.so"].map(|f| Path::new(f).exists());
    if is_here != [true; 2] {
        tools::missing("nginx with its RTMP module is not installed");
    }
    servers.iter().copied().filter(|s| *s != "nginx-rtmp" || is_here == [true; 2]).collect()
}

/// The rows of the table of promises: the promise, what was measured, what it may be, and whether it is kept.
fn promises(said: &[String]) -> Vec<Vec<String>> {
    let rows = said.iter().skip_while(|l| !l.starts_with("| promise")).skip(2).take_while(|l| l.starts_with('|'));
    rows.map(|l| l.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn names(cases: &[Value]) -> Vec<&str> {
    cases.iter().map(|c| c["case"].as_str().unwrap()).collect()
}

fn servers(cases: &[Value]) -> Vec<&str> {
    cases.iter().map(|c| c["server"].as_str().unwrap()).collect()
}

/// The first case is the engine's; nobody was cut off, and all of this was counted.
fn engine<'a>(cases: &'a [Value], case: &str, count: u64, counted: &[&str]) -> &'a Value {
    let engine = &cases[0];
    assert_eq!((engine["case"].as_str(), engine["count"].as_u64()), (Some(case), Some(count)));
    assert_eq!(engine["failed"].as_u64(), Some(0), "{engine}");
    for counted in counted {
        assert!(engine[counted].as_f64().unwrap() > 0.0, "{counted} is not counted: {engine}");
    }
    divided(engine, "cpu_seconds_per_gb", "bytes", 1e9);
    divided(engine, "cpu_seconds_per_million_packets", "packets", 1e6);
    engine
}

/// The quotient is CPU-seconds per `unit` of `divisor`, and `null` where there is none of it.
fn divided(case: &Value, quotient: &str, divisor: &str, unit: f64) {
    let (cpu, divisor) = (case["cpu_seconds"].as_f64().unwrap(), case[divisor].as_f64().unwrap());
    let told = case.get(quotient).unwrap_or_else(|| panic!("no {quotient}: {case}")).as_f64();
    let near = |told: f64| (told * divisor / unit / cpu - 1.0).abs() < 1e-6;
    assert!(if divisor > 0.0 { told.is_some_and(near) } else { told.is_none() }, "{quotient}: {case}");
}

/// Every case delivered something to somebody and cost something.
fn all_deliver(cases: &[Value]) {
    for case in cases {
        let counted = |what: &str| case[what].as_f64().unwrap() > 0.0;
        assert!(counted("packets") && counted("bytes") && counted("cpu_seconds"), "{case}");
        assert_eq!(case["failed"].as_u64(), Some(0), "{case}");
    }
}

#[test]
fn the_load_tool_counts_two_players_and_writes_one_json_object_per_case() {
    if tools::find("ffmpeg").is_none() {
        return;
    }
    let folder = Folder::new().unwrap();
    let cases = measured(folder.path(), &["rtmp", "--players", "2"]);
    assert_eq!(servers(&cases), with_peer(&["headwater", "nginx-rtmp", "floor"]));
    all_deliver(&cases);
    let engine = engine(&cases, "rtmp", 2, &["cpu_seconds", "bytes", "packets", "pictures", "seconds"]);
    assert_eq!(engine["lost"].as_u64(), Some(0));
    assert!(engine["latency_ms"]["p50"].as_f64().unwrap() > 0.0 && engine["join_ms"]["p50"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_load_tool_holds_webrtc_viewers_enough_that_a_worker_hears_them_in_batches() {
    if tools::find("ffmpeg").is_none() {
        return;
    }
    let folder = Folder::new().unwrap();
    // The last of them shake hands with a worker that moderates what it hears.
    let cases = measured(folder.path(), &["whep", "--viewers", "70"]);
    assert_eq!(servers(&cases), ["headwater", "floor"]);
    let engine = engine(&cases, "whep", 70, &["cpu_seconds", "bytes", "packets", "pictures", "kb_each"]);
    assert!(engine["latency_ms"]["p50"].as_f64().unwrap() > 0.0 && engine["join_ms"]["p50"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_load_tool_polls_playlists_waits_at_them_and_publishes() {
    if tools::find("ffmpeg").is_none() {
        return;
    }
    let folder = Folder::new().unwrap();
    let fetched = ["cpu_seconds", "bytes", "packets"];
    let hls = measured(folder.path(), &["hls", "--viewers", "3"]);
    assert_eq!(servers(&hls), with_peer(&["headwater", "nginx-rtmp"]));
    all_deliver(&hls);
    assert_eq!(engine(&hls, "hls", 3, &fetched)["lost"].as_u64(), Some(0));
    let llhls = measured(folder.path(), &["llhls", "--viewers", "3"]);
    assert_eq!(engine(&llhls, "llhls", 3, &fetched)["lost"].as_u64(), Some(0));
    assert!(llhls[0]["latency_ms"]["p50"].as_f64().unwrap() > 0.0);
    let ingest = measured(folder.path(), &["ingest", "--publishers", "3"]);
    assert_eq!(servers(&ingest), with_peer(&["headwater", "nginx-rtmp"]));
    for turn in 0..ingest.len() {
        engine(&ingest[turn..], "ingest", 3, &["cpu_seconds", "bytes"]);
    }
}

#[test]
fn the_load_tool_sets_an_edge_against_a_node_of_its_own_and_says_what_is_kept() {
    if tools::find("ffmpeg").is_none() {
        return;
    }
    let folder = Folder::new().unwrap();
    let (cases, said) = measured_and_said(folder.path(), &["edge", "--viewers", "2", "--streams", "2"]);
    assert_eq!(names(&cases), ["rtmp", "rtmp", "cold-rtmp", "cold-rtmp", "whep", "whep", "cold-whep", "cold-whep"]);
    assert_eq!(servers(&cases), ["headwater", "edge"].repeat(4));
    for pair in cases.chunks(4) {
        all_deliver(&pair[..2]);
        for cold in &pair[2..] {
            assert!(cold["join_ms"]["p50"].as_f64().unwrap() > 0.0, "{cold}");
        }
    }
    let promises = promises(&said);
    assert_eq!(promises.len(), 6, "{said:#?}");
    for promise in promises {
        assert!(["yes", "FALLS SHORT"].contains(&promise[3].as_str()), "{promise:?}");
    }
}

#[test]
fn the_load_tool_joins_a_stream_that_another_viewer_watches() {
    if tools::find("ffmpeg").is_none() {
        return;
    }
    let folder = Folder::new().unwrap();
    let cases = measured(folder.path(), &["join", "--times", "2", "--no-peer"]);
    assert_eq!(names(&cases), ["join-rtmp", "join-whep"]);
    assert_eq!(servers(&cases), ["headwater", "headwater"]);
    for case in cases {
        assert_eq!(case["count"].as_u64(), Some(2));
        assert!(case["join_ms"]["p50"].as_f64().unwrap() > 0.0, "{case}");
    }
}

#[test]
fn the_load_tool_sets_every_case_that_it_ran_against_its_promise() {
    if tools::find("ffmpeg").is_none() {
        return;
    }
    let folder = Folder::new().unwrap();
    // Without the others, which have tests of their own: it is long enough.
    let (cases, said) = measured_and_said(folder.path(), &["all", "--shrink", "50", "--no-peer", "--no-floor"]);
    assert_eq!(names(&cases), ["whep", "rtmp", "rtmp", "hls", "llhls", "ingest", "join-rtmp", "join-whep"]);
    all_deliver(&cases[..5]);
    let promises = promises(&said);
    assert_eq!(promises.len(), 11, "{said:#?}");
    for promise in promises {
        // What is a multiple of another server has no figure here.
        let kept = if promise[2].contains(" x ") { &["-"][..] } else { &["yes", "FALLS SHORT"] };
        assert!(kept.contains(&promise[3].as_str()), "{promise:?}");
    }
}

#[test]
fn the_load_tool_draws_how_the_cost_grows() {
    if tools::find("ffmpeg").is_none() {
        return;
    }
    let folder = Folder::new().unwrap();
    let out = folder.path().join("curves");
    let cases =
        measured(folder.path(), &["curve", "rtmp", "--counts", "1,3", "--no-peer", "--out", out.to_str().unwrap()]);
    assert_eq!(servers(&cases), ["headwater", "floor", "headwater", "floor"]);
    let table = std::fs::read_to_string(out.join("curve-rtmp.csv")).unwrap();
    let lines: Vec<_> = table.lines().skip(1).map(|line| line.split(',').take(2).collect::<Vec<_>>()).collect();
    assert_eq!(lines, [["1", "headwater"], ["3", "headwater"], ["1", "floor"], ["3", "floor"]]);
    let plot = std::fs::read_to_string(out.join("curve-rtmp.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"), "{plot}");
    assert_eq!(plot.matches("<polyline").count(), 2, "{plot}");
}
