//! An origin that is killed: SIGKILL to daemon and engine at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::wait;

use super::CheckContext;
use super::steps::{ensure_below, rtmp_pauses, whep_pauses};
use crate::viewers::{HlsPlayers, Kind, RtmpPlayer};

/// The publisher reconnects through the load balancer, and the viewers on all edges continue.
pub(super) fn origin(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (publisher, first) = ctx.publish("origin")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "origin")?;
    let rtmp = ctx.start_rtmp_players(&edges, "origin")?;
    let servers: Vec<_> = edges.iter().map(|at| ctx.cluster.nodes[*at].http()).collect();
    let hls = [Kind::Plain, Kind::LowLatency]
        .map(|kind| HlsPlayers::start(&ctx.cluster.runtime, kind, &servers, "origin", 1));
    for hls in &hls {
        wait::until("HLS from the edges", || (hls.stats().fetched >= 2).then_some(()))?;
    }
    // HLS in an independent player.
    let ffmpeg_player =
        vec![("ffmpeg".to_owned(), RtmpPlayer::start(&format!("http://{}/live/streams/origin.m3u8", servers[0]))?)];
    wait::until("HLS in ffmpeg", || ffmpeg_player[0].1.progress().ok().filter(|(n, _)| *n > 20))?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    rtmp.iter().for_each(|(_, player)| player.reset_pauses());
    hls.iter().for_each(HlsPlayers::reset_pauses);

    ctx.cluster.nodes[first].kill();
    let killed = Instant::now();
    ctx.wait_owner("origin", Some(first)).context("the publisher's return")?;
    let recovered = killed.elapsed();
    let webrtc = ensure_below("WebRTC", &whep_pauses(&whep, 75)?, MAX_PAUSE)?;
    let rtmp = ensure_below("RTMP", &rtmp_pauses(&rtmp, 75)?, MAX_PAUSE)?;
    for hls in &hls {
        wait::until("the discontinuity in HLS", || hls.stats().saw_discontinuity.then_some(()))?;
        let media = hls.stats().fetched;
        wait::until("HLS to continue", || (hls.stats().fetched > media + 2).then_some(()))?;
        let stats = hls.stats();
        ensure!(stats.count(404) == 0 && stats.failed_requests == 0, "HLS: {stats:?}");
    }
    rtmp_pauses(&ffmpeg_player, 100).context("HLS in ffmpeg")?;
    ensure!(publisher.start_count() >= 2, "the publisher did not reconnect");
    let low = ensure_below("LL-HLS", &[hls[1].stats().longest_pause], MAX_LL_HLS_PAUSE)?;
    Ok(format!(
        "publisher back after {:.2} s; pauses: {webrtc}; {rtmp}; {low}, \
         discontinuity sequence advanced, 0 x 404, ffmpeg continues",
        recovered.as_secs_f64()
    ))
}

/// Longest pause of a viewer while the stream moves to another origin.
const MAX_PAUSE: Duration = Duration::from_secs(3);
/// Longest time between two parts: the publisher's return and one segment of the new generation.
const MAX_LL_HLS_PAUSE: Duration = Duration::from_secs(4);
