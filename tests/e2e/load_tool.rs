//! The load tool measures: a few viewers of each kind for two seconds, and what it writes can be read by a machine.
//!
//! Whether the figures are good is for `headwater-load all` on a release build, never for a test.

use std::path::Path;
use std::process::Command;

use headwater_tests::engine::program;
use headwater_tests::temp::Folder;
use headwater_tests::tools;
use serde_json::Value;

/// One turn of a command; its measurements.
fn measured(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    let file = folder.join("cases.json");
    let output = Command::new(env!("CARGO_BIN_EXE_headwater-load"))
        .args(arguments)
        .args(["--seconds", "2", "--rounds", "1", "--no-peer", "--engine"])
        .arg(program("headwater-engine").unwrap())
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    cases.as_array().unwrap().clone()
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
    engine
}

#[test]
fn the_load_tool_counts_two_players_and_writes_one_json_object_per_case() {
    if tools::find("ffmpeg").is_none() {
        return;
    }
    let folder = Folder::new().unwrap();
    let cases = measured(folder.path(), &["rtmp", "--players", "2"]);
    assert_eq!(servers(&cases), ["headwater", "floor"]);
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
    assert_eq!(engine(&hls, "hls", 3, &fetched)["lost"].as_u64(), Some(0));
    let llhls = measured(folder.path(), &["llhls", "--viewers", "3"]);
    assert_eq!(engine(&llhls, "llhls", 3, &fetched)["lost"].as_u64(), Some(0));
    assert!(llhls[0]["latency_ms"]["p50"].as_f64().unwrap() > 0.0);
    let ingest = measured(folder.path(), &["ingest", "--publishers", "3"]);
    engine(&ingest, "ingest", 3, &["cpu_seconds", "bytes"]);
}

#[test]
fn the_load_tool_draws_how_the_cost_grows() {
    if tools::find("ffmpeg").is_none() {
        return;
    }
    let folder = Folder::new().unwrap();
    let out = folder.path().join("curves");
    let cases = measured(folder.path(), &["curve", "rtmp", "--counts", "1,3", "--out", out.to_str().unwrap()]);
    assert_eq!(servers(&cases), ["headwater", "floor", "headwater", "floor"]);
    let table = std::fs::read_to_string(out.join("curve-rtmp.csv")).unwrap();
    let lines: Vec<_> = table.lines().skip(1).map(|line| line.split(',').take(2).collect::<Vec<_>>()).collect();
    assert_eq!(lines, [["1", "headwater"], ["3", "headwater"], ["1", "floor"], ["3", "floor"]]);
    let plot = std::fs::read_to_string(out.join("curve-rtmp.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"), "{plot}");
    assert_eq!(plot.matches("<polyline").count(), 2, "{plot}");
}
