//! The load tool measures: two players for two seconds, and what it writes can be read by a machine.
//!
//! Whether the figures are good is for `headwater-load all` on a release build, never for a test.

use std::process::Command;

use headwater_tests::engine::program;
use headwater_tests::temp::Folder;
use headwater_tests::tools;

#[test]
fn the_load_tool_counts_two_players_and_writes_one_json_object_per_case() {
    if tools::find("ffmpeg").is_none() {
        return;
    }
    let folder = Folder::new().unwrap();
    let file = folder.path().join("cases.json");
    let output = Command::new(env!("CARGO_BIN_EXE_headwater-load"))
        .args(["rtmp", "--players", "2", "--seconds", "2", "--rounds", "1", "--no-peer", "--engine"])
        .arg(program("headwater-engine").unwrap())
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let servers: Vec<_> = cases.as_array().unwrap().iter().map(|c| c["server"].as_str().unwrap()).collect();
    assert_eq!(servers, ["headwater", "floor"]);
    let engine = &cases[0];
    assert_eq!((engine["case"].as_str(), engine["count"].as_u64()), (Some("rtmp"), Some(2)));
    assert_eq!((engine["lost"].as_u64(), engine["failed"].as_u64()), (Some(0), Some(0)));
    for counted in ["cpu_seconds", "bytes", "packets", "pictures", "seconds"] {
        assert!(engine[counted].as_f64().unwrap() > 0.0, "{counted} is not counted");
    }
    assert!(engine["latency_ms"]["p50"].as_f64().unwrap() > 0.0 && engine["join_ms"]["p50"].as_f64().unwrap() > 0.0);
}
