//! Streams between nodes: published to one node and played from another, over RTMP, HLS and WebRTC.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headwater_api::config::Relay;
use headwater_tests::engine::{Engine, Options};
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::temp::TempDir;
use headwater_tests::{http, wait};
use nix::sys::signal::Signal;

/// Starts a node that requests streams it does not have from `origins`.
fn start_node(secrets: &TempDir, origins: &[SocketAddr]) -> Engine {
    start_node_with(secrets, origins, |_| {})
}

fn start_node_with(secrets: &TempDir, origins: &[SocketAddr], change: impl FnOnce(&mut Relay)) -> Engine {
    let secret = secrets.path().join("cluster-secret");
    std::fs::write(&secret, "the secret of this test's cluster\n").unwrap();
    Engine::start(Options::with(|c| {
        c.relay.listen = "127.0.0.1:0".parse().unwrap();
        c.relay.secret_file = Some(secret);
        c.relay.origins = origins.to_vec();
        change(&mut c.relay);
    }))
    .unwrap()
}

fn relay_address(engine: &Engine) -> SocketAddr {
    engine.endpoints().relay.unwrap()
}

/// Query of the blocking request for the hinted part of the playlist (RFC 8216bis §6.2.5.2), for
/// another node.
fn next_part_query(playlist: &str) -> String {
    let hint = playlist.lines().find(|l| l.starts_with("#EXT-X-PRELOAD-HINT:")).unwrap();
    let uri = hint.split('"').nth(1).unwrap();
    let (segment, part) = uri.rsplit('/').next().unwrap().trim_end_matches(".m4s").split_once('.').unwrap();
    format!("?_HLS_msn={segment}&_HLS_part={part}")
}

fn wait_published(engine: &Engine) {
    wait::until("the stream to have video and audio", || {
        let response = engine.get("/rest/v2/streams/live/demo").ok()?;
        let text = response.text();
        (response.status == 200 && text.contains("H264") && text.contains("AAC")).then_some(())
    })
    .unwrap();
}

fn playlist(engine: &Engine) -> Option<String> {
    let response = engine.get("/live/streams/demo/playlist.m3u8").ok()?;
    (response.status == 200).then(|| response.text())
}

/// Starts ffmpeg as a player that prints one line per frame.
fn start_player(engine: &Engine) -> Option<Process> {
    let mut command = publish::ffmpeg_command()?;
    command.args(["-i", &engine.rtmp_url("live/demo"), "-c", "copy", "-f", "framecrc", "-flush_packets", "1", "-"]);
    Some(Process::start(&mut command).unwrap())
}

fn frame_count(player: &Process) -> usize {
    player.lines().iter().filter(|line| line.starts_with("0,") || line.starts_with("1,")).count()
}

#[test]
fn every_node_serves_every_stream_with_the_same_bytes() {
    let secrets = TempDir::new().unwrap();
    let origin = start_node(&secrets, &[]);
    let edges = [start_node(&secrets, &[relay_address(&origin)]), start_node(&secrets, &[relay_address(&origin)])];
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &origin.rtmp_url("live/demo")).unwrap() else {
        return;
    };
    wait_published(&origin);

    // A player whose every request goes to another node: each node has what the others list.
    let nodes = [&edges[0], &origin, &edges[1]];
    let started = Instant::now();
    let mut query = String::new();
    let (mut requests, mut asked) = (0_usize, std::collections::BTreeSet::new());
    while started.elapsed() < Duration::from_secs(20) {
        let at = nodes[requests % 3];
        requests += 1;
        let response = at.get(&format!("/live/streams/demo/playlist.m3u8{query}")).unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        let text = response.text();
        let uris = text.lines().filter(|l| l.ends_with(".m4s")).map(str::to_owned);
        let parts = text.lines().filter(|l| l.starts_with("#EXT-X-PART:")).filter_map(|l| l.split('"').nth(1));
        for uri in uris.chain(parts.map(str::to_owned)) {
            if !asked.insert(uri.clone()) {
                continue;
            }
            let path = format!("/live/streams/demo/{uri}");
            let bodies: Vec<_> = nodes.iter().map(|n| n.get(&path).unwrap()).collect();
            for (n, response) in bodies.iter().enumerate() {
                assert_eq!(response.status, 200, "{uri} on node {n} after {requests} requests: {}", response.text());
                assert!(response.body == bodies[0].body, "{uri} differs on node {n}");
            }
        }
        query = next_part_query(&text);
    }
    assert!(asked.len() > 60, "{} segments and parts", asked.len());

    // A complete window has the same text on every node.
    wait::until("the same playlist everywhere", || {
        let all: Vec<_> = nodes.iter().map(|n| playlist(n)).collect();
        (all[0].is_some() && all.iter().all(|p| *p == all[0])).then_some(())
    })
    .unwrap();
    for engine in nodes {
        assert_eq!(engine.panics(), Vec::<String>::new());
        assert!(!engine.process().lines().iter().any(|l| l.contains("secret of this test")), "a secret in the log");
    }
}

#[test]
fn edge_player_continues_when_the_publisher_moves_from_a_killed_origin() {
    let secrets = TempDir::new().unwrap();
    let origins = [start_node(&secrets, &[]), start_node(&secrets, &[])];
    let edge = start_node(&secrets, &[relay_address(&origins[0]), relay_address(&origins[1])]);
    let url = |n: usize| origins[n].rtmp_url("live/demo");
    let Some(first) = publish::start_ffmpeg(&Source::default(), &url(0)).unwrap() else { return };
    wait_published(&origins[0]);
    let Some(player) = start_player(&edge) else { return };
    wait::until("frames from the edge", || (frame_count(&player) > 50).then_some(())).unwrap();
    wait::until("a playlist from the edge", || playlist(&edge)).unwrap();

    origins[0].process().signal(Signal::SIGKILL);
    drop(first);
    let killed = Instant::now();
    let _second = publish::start_ffmpeg(&Source::default(), &url(1)).unwrap();
    let before = frame_count(&player);
    let target = before + 200;
    let (mut last, mut changed, mut gap) = (before, Instant::now(), Duration::ZERO);
    wait::until("frames after the loss of the origin", || {
        let now = frame_count(&player);
        if now > last {
            gap = gap.max(changed.elapsed());
            (last, changed) = (now, Instant::now());
        }
        (now > target).then_some(())
    })
    .unwrap();
    assert!(gap < Duration::from_secs(3), "a gap of {gap:?}, playing {:?} after the kill", killed.elapsed());
    assert!(player.is_running());
    let text = wait::until("a playlist of the next generation", || {
        playlist(&edge).filter(|text| {
            origins[1].get("/live/streams/demo/playlist.m3u8").is_ok_and(|a| {
                a.text().lines().find(|l| l.contains("EXT-X-MAP")) == text.lines().find(|l| l.contains("EXT-X-MAP"))
            })
        })
    })
    .unwrap();
    assert!(text.contains("#EXT-X-DISCONTINUITY-SEQUENCE:"), "{text}");
    assert_eq!(edge.panics(), Vec::<String>::new());
}

#[test]
fn stream_that_no_node_has_is_not_found() {
    let secrets = TempDir::new().unwrap();
    let origin = start_node(&secrets, &[]);
    let edge = start_node(&secrets, &[relay_address(&origin)]);
    let response = edge.get("/live/streams/nobody.m3u8").unwrap();
    assert_eq!((response.status, response.text().contains("stream_not_found")), (404, true), "{}", response.text());
}

#[test]
fn viewers_of_an_edge_behind_a_full_origin_are_refused_as_full() {
    let secrets = TempDir::new().unwrap();
    let origin = start_node_with(&secrets, &[], |relay| relay.max_connections = 1.try_into().unwrap());
    let edges = [start_node(&secrets, &[relay_address(&origin)]), start_node(&secrets, &[relay_address(&origin)])];
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &origin.rtmp_url("live/demo")).unwrap() else {
        return;
    };
    wait_published(&origin);
    // It takes the only connection slot of the origin.
    let _watches = RtmpClient::player(edges[0].rtmp(), "demo").unwrap();

    let edge = &edges[1];
    let player = start_player(edge).unwrap();
    let offer =
        || http::request(edge.http(), "POST", "/live/whep/demo", &[("content-type", "application/sdp")], b"v=0\r\n");
    let (whep, hls) = std::thread::scope(|scope| {
        let whep = scope.spawn(offer);
        let hls = edge.get("/live/streams/demo/playlist.m3u8").unwrap();
        (whep.join().unwrap().unwrap(), hls)
    });
    for response in [whep, hls] {
        let expected = serde_json::json!({
            "error": "full",
            "message": "live/demo is live, but its origin node has reached its limit of relay connections; try again.",
        });
        assert_eq!((response.status, response.json::<serde_json::Value>().unwrap()), (503, expected));
        assert_eq!((response.header("retry-after"), response.header("cache-control")), (Some("1"), Some("no-store")));
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    }
    // ffmpeg prints the description of NetStream.Play.Failed.
    let sentence = "the stream is live, and the node that has it serves as many others as it may; try again";
    player.wait_line(&format!("Server error: {sentence}")).unwrap();
    assert!(!player.wait_exit(wait::WAIT_TIMEOUT).unwrap().success());
    edge.process().wait_line("play refused").unwrap();
    assert!(edges[0].status("live/demo").unwrap().is_some());
}
