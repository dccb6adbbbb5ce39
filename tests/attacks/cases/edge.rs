//! An edge that is asked for streams nobody has, and an origin whose relay gets connections that
//! prove nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::engine::{Engine, Options};
use headwater_tests::http;
use headwater_tests::temp::TempDir;
use headwater_tests::wait;

use crate::attacker::{attacker, connect_from, newcomer};
use crate::node::Node;
use crate::target::{CANARY_ID, Setup, Target};

/// A node that gets streams from `origin`, on free ports.
pub(super) fn edge_options(setup: &Setup, origin: &Node) -> anyhow::Result<Options> {
    let mut options = setup.options();
    options.config.relay.origins = vec![origin.relay()?];
    options.config.node.id = "edge".to_owned();
    Ok(options)
}

/// Requests for streams that do not exist, each with another name, while the canary watches the
/// edge.
pub(super) fn unknown_streams(setup: &Setup) -> anyhow::Result<String> {
    let duration = setup.scale(Duration::from_secs(5), Duration::from_secs(30));
    let origin = Target::start(setup, setup.options())?;
    let folder = TempDir::new()?;
    let edge = Node::start_in(edge_options(setup, origin.node())?, folder.path())?;
    edge.wait_ready()?;
    let mut edge = Target::watch_relayed(setup, edge)?;
    edge.withstand(|node| {
        let started = Instant::now();
        let statuses = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..16)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut statuses = Vec::new();
                        while started.elapsed() < duration {
                            let n = statuses.len();
                            let stream = connect_from(attacker(thread), node.http())?;
                            let path = format!("/live/streams/unknown-{thread}-{n}.m3u8");
                            statuses.push(http::request_on(stream, "GET", &path, &[], b"")?.status);
                        }
                        anyhow::Ok(statuses)
                    })
                })
                .collect();
            let all: anyhow::Result<Vec<_>> =
                senders.into_iter().map(|s| s.join().ok().context("a sender panicked")?).collect();
            all
        })?
        .concat();
        let count = |status: u16| statuses.iter().filter(|s| **s == status).count();
        let (not_found, busy) = (count(404), count(503));
        ensure!(not_found + busy == statuses.len() && not_found > 0, "{statuses:?}");
        let stream = connect_from(newcomer(6), node.http())?;
        let path = format!("/live/streams/{CANARY_ID}/playlist.m3u8");
        let known = http::request_on(stream, "GET", &path, &[], b"")?;
        ensure!(known.status == 200, "the stream that exists: {} {}", known.status, known.text());
        Ok(format!("{} requests: {not_found} not found, {busy} busy", statuses.len()))
    })
}

/// More silent connections to the relay than it has places for edges: an edge still gets in.
pub(super) fn silent_relay_connections(setup: &Setup) -> anyhow::Result<String> {
    const CONNECTIONS: usize = 4_100;
    let mut target = Target::start(setup, setup.options())?;
    target.withstand(|node| {
        let at = node.relay()?;
        let mut silent = Vec::new();
        for n in 0..CONNECTIONS {
            silent.push(connect_from(attacker(n), at)?);
        }
        let started = Instant::now();
        let edge = Engine::start(edge_options(setup, node)?)?;
        // As many again while the edge connects.
        for n in 0..CONNECTIONS / 10 {
            silent.push(connect_from(attacker(n), at)?);
        }
        wait::until("the stream on an edge", || {
            let response = edge.get(&format!("/live/streams/{CANARY_ID}/playlist.m3u8")).ok()?;
            (response.status == 200).then_some(())
        })?;
        let rejected = node.metric("headwater_relay_unauthenticated_total")?;
        ensure!(rejected >= (CONNECTIONS - 128) as f64, "only {rejected} connections were replaced or timed out");
        Ok(format!(
            "{} connections, {rejected} closed; an edge started and played within {} ms",
            silent.len(),
            started.elapsed().as_millis()
        ))
    })
}
