//! Nodes that are killed: SIGKILL to engine and daemon at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::wait;

use super::Stage;
use super::watch::{below, rtmp_pauses, whep_pauses};
use crate::viewers::{Hls, Kind, Rtmp, Whep};

/// The publisher comes back through the balancer, and the viewers of all edges go on.
pub(super) fn origin(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (publisher, first) = stage.publish("origin")?;
    let edges = stage.edges();
    let mut whep = stage.whep(&edges, "origin")?;
    let rtmp = stage.rtmp(&edges, "origin")?;
    let servers: Vec<_> = edges.iter().map(|at| stage.scene.nodes[*at].http()).collect();
    let hls = [Kind::Plain, Kind::LowLatency].map(|kind| Hls::start(&stage.scene.runtime, kind, &servers, "origin", 1));
    for hls in &hls {
        wait::until("HLS from the edges", || (hls.seen().media >= 2).then_some(()))?;
    }
    // HLS as a stranger plays it.
    let stranger =
        vec![("ffmpeg".to_owned(), Rtmp::start(&format!("http://{}/live/streams/origin.m3u8", servers[0]))?)];
    wait::until("HLS in ffmpeg", || stranger[0].1.progress().ok().filter(|(n, _)| *n > 20))?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    rtmp.iter().for_each(|(_, player)| player.mark());
    hls.iter().for_each(Hls::mark);

    stage.scene.nodes[first].kill();
    let killed = Instant::now();
    stage.wait_owner("origin", Some(first)).context("the publisher's return")?;
    let back = killed.elapsed();
    let webrtc = below("WebRTC", &whep_pauses(&whep, 75)?, PAUSE)?;
    let rtmp = below("RTMP", &rtmp_pauses(&rtmp, 75)?, PAUSE)?;
    for hls in &hls {
        wait::until("the discontinuity in HLS", || hls.seen().discontinuity.then_some(()))?;
        let media = hls.seen().media;
        wait::until("HLS to go on", || (hls.seen().media > media + 2).then_some(()))?;
        let seen = hls.seen();
        ensure!(seen.status(404) == 0 && seen.broken == 0, "HLS: {seen:?}");
    }
    rtmp_pauses(&stranger, 100).context("HLS in ffmpeg")?;
    ensure!(publisher.starts() >= 2, "the publisher never left");
    let low = below("LL-HLS", &[hls[1].seen().pause], PAUSE_LL_HLS)?;
    Ok(format!(
        "publisher back after {:.2} s; pauses: {webrtc}; {rtmp}; {low}, discontinuity sequence moved on, 0 x 404, ffmpeg plays on",
        back.as_secs_f64()
    ))
}

/// Viewers of other edges notice nothing; its own find another through the balancer.
pub(super) fn edge(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (_publisher, _) = stage.publish("edge")?;
    let edges = stage.edges();
    let (victim, others) = edges.split_first().context("no edges")?;
    let mut whep = stage.whep(others, "edge")?;
    let lost = stage.whep(&[*victim], "edge")?;
    let balancer = stage.scene.http.address();
    let hls = Hls::start(&stage.scene.runtime, Kind::LowLatency, &[balancer], "edge", 6);
    wait::until("HLS through the balancer", || (hls.seen().media >= 12).then_some(()))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    hls.mark();
    stage.scene.nodes[*victim].kill();
    let killed = Instant::now();
    // A page whose node is gone asks the balancer again.
    let again = Whep::start(balancer, "edge", stage.scene.gateway())?;
    again.wait_playing().context("WebRTC again, through the balancer")?;
    let back = killed.elapsed();
    drop(lost);
    let pauses = below("others' WebRTC pauses", &whep_pauses(&whep, 50)?, Duration::from_secs(1))?;
    let media = hls.seen().media;
    wait::until("HLS to go on through the balancer", || (hls.seen().media > media + 30).then_some(()))?;
    let seen = hls.seen();
    ensure!(seen.refused() == 0, "HLS through the balancer: {seen:?}");
    let pause = below("LL-HLS pause", &[seen.pause], PAUSE)?;
    Ok(format!("{pauses}; joined again in {} ms; {pause}, {} requests cut", back.as_millis(), seen.broken))
}

/// Of a viewer whose stream comes back elsewhere.
const PAUSE: Duration = Duration::from_secs(3);
/// Between two parts: the publisher's return, and a segment of the new life.
const PAUSE_LL_HLS: Duration = Duration::from_secs(4);
