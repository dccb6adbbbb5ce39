//! Nodes that are killed: SIGKILL to daemon and engine at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::wait;

use super::CheckContext;
use super::steps::{ensure_below, rtmp_pauses, whep_pauses};
use crate::viewers::{HlsPlayers, Kind, RtmpPlayer, WhepViewer};

/// The publisher reconnects through the load balancer, and the viewers on all edges continue.
pub(super) fn origin(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (publisher, first) = ctx.publish("origin")?;
    let edges = ctx.edges();
    let mut whep = ctx.whep(&edges, "origin")?;
    let rtmp = ctx.rtmp(&edges, "origin")?;
    let servers: Vec<_> = edges.iter().map(|at| ctx.cluster.nodes[*at].http()).collect();
    let hls = [Kind::Plain, Kind::LowLatency].map(|kind| HlsPlayers::start(&ctx.cluster.runtime, kind, &servers, "origin", 1));
    for hls in &hls {
        wait::until("HLS from the edges", || (hls.seen().media >= 2).then_some(()))?;
    }
    // HLS in an independent player.
    let stranger =
        vec![("ffmpeg".to_owned(), RtmpPlayer::start(&format!("http://{}/live/streams/origin.m3u8", servers[0]))?)];
    wait::until("HLS in ffmpeg", || stranger[0].1.progress().ok().filter(|(n, _)| *n > 20))?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    rtmp.iter().for_each(|(_, player)| player.reset_pauses());
    hls.iter().for_each(HlsPlayers::reset_pauses);

    ctx.cluster.nodes[first].kill();
    let killed = Instant::now();
    ctx.wait_owner("origin", Some(first)).context("the publisher's return")?;
    let back = killed.elapsed();
    let webrtc = ensure_below("WebRTC", &whep_pauses(&whep, 75)?, MAX_PAUSE)?;
    let rtmp = ensure_below("RTMP", &rtmp_pauses(&rtmp, 75)?, MAX_PAUSE)?;
    for hls in &hls {
        wait::until("the discontinuity in HLS", || hls.seen().discontinuity.then_some(()))?;
        let media = hls.seen().media;
        wait::until("HLS to go on", || (hls.seen().media > media + 2).then_some(()))?;
        let seen = hls.seen();
        ensure!(seen.status(404) == 0 && seen.broken == 0, "HLS: {seen:?}");
    }
    rtmp_pauses(&stranger, 100).context("HLS in ffmpeg")?;
    ensure!(publisher.starts() >= 2, "the publisher never left");
    let low = ensure_below("LL-HLS", &[hls[1].seen().pause], MAX_LL_HLS_PAUSE)?;
    Ok(format!(
        "publisher back after {:.2} s; pauses: {webrtc}; {rtmp}; {low}, discontinuity sequence moved on, 0 x 404, ffmpeg plays on",
        back.as_secs_f64()
    ))
}

/// Viewers on other edges are not affected; those of the killed edge rejoin through the load
/// balancer.
pub(super) fn edge(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, _) = ctx.publish("edge")?;
    let edges = ctx.edges();
    let (killed_edge, others) = edges.split_first().context("no edges")?;
    let mut whep = ctx.whep(others, "edge")?;
    let lost = ctx.whep(&[*killed_edge], "edge")?;
    let balancer = ctx.cluster.http_balancer.address();
    let hls = HlsPlayers::start(&ctx.cluster.runtime, Kind::LowLatency, &[balancer], "edge", 6);
    wait::until("HLS through the balancer", || (hls.seen().media >= 12).then_some(()))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    hls.reset_pauses();
    ctx.cluster.nodes[*killed_edge].kill();
    let killed = Instant::now();
    // A page whose node has failed reconnects through the load balancer.
    let again = WhepViewer::start(balancer, "edge", ctx.cluster.gateway())?;
    again.wait_playing().context("WebRTC again, through the balancer")?;
    let back = killed.elapsed();
    drop(lost);
    let pauses = ensure_below("others' WebRTC pauses", &whep_pauses(&whep, 50)?, Duration::from_secs(1))?;
    let media = hls.seen().media;
    wait::until("HLS to go on through the balancer", || (hls.seen().media > media + 30).then_some(()))?;
    let seen = hls.seen();
    ensure!(seen.error_responses() == 0, "HLS through the balancer: {seen:?}");
    let pause = ensure_below("LL-HLS pause", &[seen.pause], MAX_PAUSE)?;
    Ok(format!("{pauses}; joined again in {} ms; {pause}, {} requests cut", back.as_millis(), seen.broken))
}

/// Longest pause of a viewer while the stream moves to another origin.
const MAX_PAUSE: Duration = Duration::from_secs(3);
/// Longest time between two parts: the publisher's return and one segment of the new generation.
const MAX_LL_HLS_PAUSE: Duration = Duration::from_secs(4);
