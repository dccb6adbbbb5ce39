//! What `/readyz` says of a node: each fault turns it within ten seconds, and its end turns it back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use headwater_api::status::EngineStatus;
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Engine, Options, wait_status};
use headwater_tests::http;
use headwater_tests::publish::{Source, ffmpeg};
use headwater_tests::temp::Folder;
use headwater_tests::wait;
use nix::sys::signal::Signal;
use serde::Deserialize;

/// How long a fault may go unnoticed, and its end too.
const SOON: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
struct Readiness {
    ready: bool,
    checks: BTreeMap<String, String>,
}

fn readiness(health: SocketAddr) -> Option<Readiness> {
    let answer = http::get(health, "/readyz").ok()?;
    let readiness: Readiness = serde_json::from_slice(answer.text().as_bytes()).unwrap();
    assert_eq!(readiness.ready, answer.status == 200);
    Some(readiness)
}

/// Waits until exactly this check is wrong, or none.
#[expect(clippy::print_stdout, reason = "the figure that was measured")]
pub(crate) fn wait_wrong(health: SocketAddr, check: Option<&str>, sentence: &str) {
    let begun = Instant::now();
    let what = format!("{} to be wrong", check.unwrap_or("nothing"));
    wait::until_within(SOON, &what, || {
        let readiness = readiness(health)?;
        let mut wrong = readiness.checks.iter().filter(|(_, said)| *said != "ok");
        let (first, second) = (wrong.next(), wrong.next());
        match (check, first, second) {
            (None, None, _) => readiness.ready.then_some(()),
            (Some(name), Some((found, said)), None) => (name == found && said.contains(sentence)).then_some(()),
            _ => None,
        }
    })
    .unwrap();
    println!("{what}: {} ms", begun.elapsed().as_millis());
}

fn free_mb(folder: &Folder) -> u64 {
    let found = nix::sys::statvfs::statvfs(folder.path()).unwrap();
    found.blocks_available() * found.fragment_size() / 1_000_000
}

#[test]
fn each_fault_of_a_node_turns_readyz_within_ten_seconds_and_back() {
    type Act<'a> = Box<dyn Fn() + 'a>;
    const MARGIN_MB: u64 = 4_000;
    let folder = Folder::new().unwrap();
    let least = free_mb(&folder).saturating_sub(MARGIN_MB);
    let daemon =
        Daemon::start_in(Options::with(|c| c.limits.min_free_mb = least.try_into().unwrap()), folder.path()).unwrap();
    daemon.process().line("node ready").unwrap();
    let health = daemon.endpoints(None).unwrap().health;
    let hog = folder.path().join("hog");
    let fill = || {
        let size = format!("{}M", 2 * MARGIN_MB);
        assert!(Command::new("fallocate").args(["-l", &size]).arg(&hog).status().unwrap().success());
    };
    let free = || std::fs::remove_file(&hog).unwrap();
    // Cluster faults (lease, clock) are in cluster.rs and clock.rs; listeners and workers in the engine's own tests.
    let faults: [(&str, &str, Act<'_>, Act<'_>); 2] = [
        ("disk", "MB are free in", Box::new(fill), Box::new(free)),
        (
            "daemon",
            "has said nothing for",
            Box::new(|| daemon.process().signal(Signal::SIGSTOP)),
            Box::new(|| daemon.process().signal(Signal::SIGCONT)),
        ),
    ];
    wait_wrong(health, None, "");
    for (check, sentence, breaks, mends) in &faults {
        breaks();
        wait_wrong(health, Some(check), sentence);
        mends();
        wait_wrong(health, None, "");
    }
}

#[test]
fn a_node_that_cannot_play_what_is_published_to_it_is_not_ready_and_says_so() {
    // The publisher of the proof takes the only place, and its player is turned away.
    let engine = Engine::start(Options::with(|c| c.rtmp.max_connections = 1.try_into().unwrap())).unwrap();
    wait::until("the proof to fail", || {
        let readiness = readiness(engine.health())?;
        readiness.checks["loopback"].contains("has not worked yet: ").then_some(())
    })
    .unwrap();
}

#[test]
fn the_proof_of_readiness_is_seen_by_nobody() {
    let engine = Engine::start(Options::default()).unwrap();
    wait_wrong(engine.health(), None, "");
    assert_eq!(http::get(engine.http(), "/rest/v2/streams").unwrap().text(), "[]");
    assert!(!engine.process().lines().iter().any(|l| l.contains("publish accepted") || l.contains("play accepted")));
}

#[test]
fn status_tells_what_the_engine_carries_and_sends() {
    let engine = Engine::start(Options::default()).unwrap();
    let Some(_publisher) = ffmpeg(&Source::default(), &engine.rtmp_url("live/a")).unwrap() else { return };
    wait_status(engine.http(), "live/a", "pictures", |s| s.video.is_some()).unwrap();
    let mut player = headwater_tests::publish::ffmpeg_command().unwrap();
    player.args(["-i", &engine.rtmp_url("live/a"), "-f", "null", "-"]);
    let _player = headwater_tests::process::Process::start(&mut player).unwrap();
    let status = wait::until("one player and what is sent to it", || {
        let answer = http::get(engine.health(), "/status").ok()?;
        let status: EngineStatus = serde_json::from_slice(answer.text().as_bytes()).unwrap();
        (status.load.viewers == 1 && status.load.egress_bps > 0).then_some(status)
    })
    .unwrap();
    assert_eq!((status.load.streams, status.load.viewers_by.rtmp, status.ready), (1, 1, true));
    assert_eq!(status.watched.iter().map(|w| (w.name.as_str(), w.viewers)).collect::<Vec<_>>(), [("live/a", 1)]);
}
