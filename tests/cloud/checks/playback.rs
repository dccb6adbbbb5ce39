//! A stream published on any origin plays on every node, over every protocol.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::wait;

use super::CheckContext;
use crate::viewers::{HlsPlayers, Kind, RtmpPlayer, WhepViewer};

/// Time from the start of the daemon to a node that serves and is registered, with these stand-ins.
pub(super) fn node_start(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let edge = *ctx.edges().first().context("no edges")?;
    // Wait for the query of each instance's network capacity: it takes the AWS stand-in seconds,
    // during which it answers no other request.
    for node in &ctx.cluster.nodes {
        node.daemon()?.wait_line("egress capacity")?;
    }
    ctx.cluster.nodes[edge].kill();
    ctx.cluster.relaunch(edge)?;
    let line = ctx.cluster.nodes[edge].daemon()?.wait_line("node ready")?;
    let ms = line
        .split("elapsed_ms=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .context("no elapsed_ms in the log line")?;
    let ms: u64 = ms.parse()?;
    ensure!(ms < 1_000, "ready after {ms} ms: not below 1 s");
    Ok(format!("ready after {ms} ms"))
}

pub(super) fn every_node(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, _) = ctx.publish("play")?;
    let (mut slowest, mut packet_ms, mut played) = (Duration::ZERO, 0.0_f64, 0);
    for node in &ctx.cluster.nodes {
        let started = Instant::now();
        let whep = WhepViewer::start(node.http(), "play", ctx.cluster.gateway())?;
        let rtmp = RtmpPlayer::start(&format!("rtmp://{}/live/play", node.rtmp()))?;
        let hls = [Kind::Plain, Kind::LowLatency]
            .map(|k| (k, HlsPlayers::start(&ctx.cluster.runtime, k, &[node.http()], "play", 1)));
        let name = &node.name;
        packet_ms = packet_ms.max(whep.wait_playing().with_context(|| format!("WebRTC from {name}"))?);
        slowest = slowest.max(started.elapsed());
        wait::until(&format!("RTMP from {name}"), || rtmp.progress().ok().filter(|(frames, _)| *frames > 30))?;
        wait::until(&format!("WebRTC from {name} to continue"), || whep.progress().ok().filter(|(n, _)| *n > 20))?;
        for (kind, hls) in &hls {
            wait::until(&format!("{kind:?} HLS from {name}"), || (hls.stats().fetched >= 2).then_some(()))
                .with_context(|| format!("{:?}", hls.stats()))?;
            let stats = hls.stats();
            ensure!(stats.error_responses() == 0 && stats.failed_requests == 0, "{kind:?} HLS from {name}: {stats:?}");
        }
        played += 4;
    }
    ensure!(packet_ms < MAX_FIRST_PACKET_MS, "WebRTC: the first packet arrived {packet_ms:.0} ms after the POST");
    Ok(format!(
        "{played} of {played} play; WebRTC: first packet within {packet_ms:.0} ms, including the viewer's start {} ms",
        slowest.as_millis()
    ))
}

/// From the POST to the first packet, on the slowest node. Fails if the stream starts only on a
/// second attempt, but leaves room for a busy machine.
const MAX_FIRST_PACKET_MS: f64 = 2_000.0;
