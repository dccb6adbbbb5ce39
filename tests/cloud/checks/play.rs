//! A stream published anywhere plays everywhere, over every protocol.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::wait;

use super::Stage;
use crate::viewers::{Hls, Kind, Rtmp, Whep};

/// From the start of the daemon to a node that serves and is registered, with these stand-ins.
pub(super) fn start(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let edge = *stage.edges().first().context("no edges")?;
    // The stand-in for AWS takes seconds to say what an instance can carry, or too long, and answers nobody else meanwhile.
    for node in &stage.scene.nodes {
        node.daemon()?.line("egress capacity")?;
    }
    stage.scene.nodes[edge].kill();
    stage.scene.relaunch(edge)?;
    let line = stage.scene.nodes[edge].daemon()?.line("node ready")?;
    let ms = line.split("elapsed_ms=").nth(1).and_then(|rest| rest.split(' ').next()).context("no time")?;
    let ms: u64 = ms.parse()?;
    ensure!(ms < 1_000, "ready after {ms} ms: not below 1 s");
    Ok(format!("ready after {ms} ms"))
}

pub(super) fn everywhere(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (_publisher, _) = stage.publish("play")?;
    let (mut slowest, mut packet_ms, mut played) = (Duration::ZERO, 0.0_f64, 0);
    for node in &stage.scene.nodes {
        let asked = Instant::now();
        let whep = Whep::start(node.http(), "play", stage.scene.gateway())?;
        let rtmp = Rtmp::start(&format!("rtmp://{}/live/play", node.rtmp()))?;
        let hls = [Kind::Plain, Kind::LowLatency]
            .map(|k| (k, Hls::start(&stage.scene.runtime, k, &[node.http()], "play", 1)));
        let name = &node.name;
        packet_ms = packet_ms.max(whep.wait_playing().with_context(|| format!("WebRTC from {name}"))?);
        slowest = slowest.max(asked.elapsed());
        wait::until(&format!("RTMP from {name}"), || rtmp.progress().ok().filter(|(frames, _)| *frames > 30))?;
        wait::until(&format!("WebRTC from {name} to go on"), || whep.progress().ok().filter(|(n, _)| *n > 20))?;
        for (kind, hls) in &hls {
            wait::until(&format!("{kind:?} HLS from {name}"), || (hls.seen().media >= 2).then_some(()))
                .with_context(|| format!("{:?}", hls.seen()))?;
            let seen = hls.seen();
            ensure!(seen.refused() == 0 && seen.broken == 0, "{kind:?} HLS from {name}: {seen:?}");
        }
        played += 4;
    }
    ensure!(packet_ms < FIRST_PACKET_MS, "WebRTC: the first packet came {packet_ms:.0} ms after the POST");
    Ok(format!(
        "{played} of {played} play; WebRTC: first packet within {packet_ms:.0} ms, with the viewer's start {} ms",
        slowest.as_millis()
    ))
}

/// From the POST, at the slowest node. Generous: a stream that comes only by a second try is seen, a busy machine is not.
const FIRST_PACKET_MS: f64 = 2_000.0;
