//! More idle connections than the engine may open files: health, relay and viewers keep working,
//! and clients with other addresses are served.

use anyhow::{Context as _, ensure};
use headwater_tests::engine::Engine;
use headwater_tests::http;
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::wait;

use super::edge::edge_options;
use crate::attacker::{attacker, connect_from, newcomer};
use crate::canary::WhepViewer;
use crate::node::Node;
use crate::target::{CANARY_ID, Setup, Target};

/// The usual soft limit of a shell or a unit; the hard limit is larger.
pub(super) fn soft_limit(setup: &Setup) -> anyhow::Result<String> {
    exhaust(setup, "1024:8192")
}

/// The engine cannot raise its limit.
pub(super) fn hard_limit(setup: &Setup) -> anyhow::Result<String> {
    exhaust(setup, "2048:2048")
}

/// Opens thousands of idle connections to a node with this soft and hard limit of open files.
fn exhaust(setup: &Setup, limit: &str) -> anyhow::Result<String> {
    /// To each of the two listeners; together less than this program may open.
    const CONNECTIONS: usize = 4_000;
    let mut options = setup.options();
    options.command_prefix = vec!["prlimit".to_owned(), format!("--nofile={limit}")];
    let mut target = Target::start(setup, options)?;
    target.withstand(|node| {
        let mut idle = Vec::new();
        for n in 0..CONNECTIONS {
            // Two addresses: each may take half of a pool that is empty, and a quarter after that.
            idle.push(connect_from(attacker(n % 2), node.http())?);
            idle.push(connect_from(attacker(n % 2), node.rtmp())?);
        }
        let connections = |protocol: &str| node.metric(&format!("headwater_{protocol}_connections"));
        let (http, rtmp) = (connections("http")?, connections("rtmp")?);
        ensure!(node.is_ready(), "{}", node.readiness()?);
        serve_newcomer(node)?;
        relay_to_edge(setup, node)?;
        drop(idle);
        Ok(format!("{http} HTTP and {rtmp} RTMP connections of {CONNECTIONS} each are open"))
    })
}

/// A client with another address gets a page and the stream over all protocols.
fn serve_newcomer(node: &Node) -> anyhow::Result<()> {
    for path in ["/live/play.html".to_owned(), format!("/live/streams/{CANARY_ID}/playlist.m3u8")] {
        let stream = connect_from(newcomer(5), node.http())?;
        let response = http::request_on(stream, "GET", &path, &[], b"").with_context(|| path.clone())?;
        ensure!(response.status == 200, "{path}: {} {}", response.status, response.text());
    }
    let socket = connect_from(newcomer(5), node.rtmp())?;
    RtmpClient::player_on(socket, "live", CANARY_ID).context("RTMP")?.next_video()?;
    WhepViewer::start(node.http(), CANARY_ID, newcomer(5).into())?.wait_playing().context("WHEP")?;
    Ok(())
}

/// An edge gets the stream.
fn relay_to_edge(setup: &Setup, node: &Node) -> anyhow::Result<()> {
    let edge = Engine::start(edge_options(setup, node)?)?;
    wait::until("the stream on an edge", || {
        let response = edge.get(&format!("/live/streams/{CANARY_ID}/playlist.m3u8")).ok()?;
        (response.status == 200).then_some(())
    })
}
