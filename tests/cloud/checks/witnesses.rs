//! An owner that does not answer: the edges that watch its stream decide whether it keeps the name.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::wait;
use nix::sys::signal::Signal;

use super::steps::{check_repeatedly, ensure_below, owns, rtmp_pauses, whep_pauses};
use super::{CheckContext, CheckLevel};
use crate::node::Role;
use crate::viewers::{HlsPlayers, Kind, Publisher};

/// The engine and the daemon of an origin freeze, and its publisher returns through the load
/// balancer. Later the origin continues.
pub(super) fn publisher_returns(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let max_gap = if ctx.options.level == CheckLevel::Short { MAX_GAP_SHORT } else { MAX_GAP };
    let (publisher, first) = ctx.publish("returning")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "returning")?;
    let rtmp = ctx.start_rtmp_players(&edges, "returning")?;
    let servers: Vec<_> = edges.iter().map(|at| ctx.cluster.nodes[*at].http()).collect();
    let hls = HlsPlayers::start(&ctx.cluster.runtime, Kind::LowLatency, &servers, "returning", 1);
    wait::until("LL-HLS from the edges", || (hls.stats().fetched >= 6).then_some(()))?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    rtmp.iter().for_each(|(_, player)| player.reset_pauses());
    hls.reset_pauses();

    ctx.cluster.nodes[first].signal(Signal::SIGSTOP);
    let frozen = Instant::now();
    let healthy = ctx.cluster.nodes_with_role(Role::Origin).len() - 1;
    wait::until("the load balancer to notice", || {
        (ctx.cluster.rtmp_balancer.healthy_count() == healthy).then_some(())
    })?;
    // Its connection to the frozen origin is open; an encoder gives up at some time.
    drop(publisher);
    let returned = Instant::now();
    let away = returned - frozen;
    let _publisher = Publisher::start(&ctx.cluster.publish_url("live/returning"))?;
    let second = ctx.wait_owner("returning", Some(first)).context("the publisher's return")?;
    let taken = returned.elapsed();
    // All viewers have been without media since the origin froze.
    let since_return = |pauses: &[Duration]| pauses.iter().map(|pause| pause.saturating_sub(away)).collect::<Vec<_>>();
    let webrtc = ensure_below("WebRTC", &since_return(&whep_pauses(&whep, 75)?), max_gap)?;
    let rtmp_gaps = ensure_below("RTMP", &since_return(&rtmp_pauses(&rtmp, 75)?), max_gap)?;
    let fetched = hls.stats().fetched;
    wait::until("LL-HLS to continue", || (hls.stats().fetched > fetched + 6).then_some(()))?;
    let stats = hls.stats();
    ensure!(stats.count(404) == 0, "LL-HLS: {stats:?}");
    let low = ensure_below("LL-HLS", &since_return(&[stats.longest_pause]), max_gap)?;

    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    ctx.cluster.nodes[first].signal(Signal::SIGCONT);
    let thawed = Instant::now();
    wait::until("the first owner to release the stream", || {
        (!owns(&ctx.cluster.nodes[first], "returning")).then_some(())
    })?;
    let fenced = thawed.elapsed();
    check_repeatedly(Duration::from_secs(3), || {
        ensure!(owns(&ctx.cluster.nodes[second], "returning"), "the second owner lost the stream");
        ensure!(!owns(&ctx.cluster.nodes[first], "returning"), "two owners");
        Ok(())
    })?;
    let after = ensure_below("pauses after the thaw", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    Ok(format!(
        "away for {:.1} s, accepted {:.2} s after its return; longest gaps from its return: {webrtc}; {rtmp_gaps}; \
         {low}; thawed: one owner after {:.1} s, {after}",
        away.as_secs_f64(),
        taken.as_secs_f64(),
        fenced.as_secs_f64()
    ))
}

/// Two origins cannot reach each other, and a second publisher uses the name at the one that does
/// not own it. The edges reach both.
pub(super) fn origins_partitioned(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, owner) = ctx.publish("kept")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "kept")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    let origins = ctx.cluster.nodes_with_role(Role::Origin);
    let other = origins.iter().copied().find(|at| *at != owner).context("fewer than two origins")?;
    ctx.cluster.nodes[owner].host().partition_from(ctx.cluster.nodes[other].host().address())?;
    let cut = Instant::now();
    let second = Publisher::start(&format!("rtmp://{}/live/kept", ctx.cluster.nodes[other].rtmp()))?;
    wait::until("the second publisher to be refused five times", || (second.start_count() >= 6).then_some(()))?;
    ensure!(owns(&ctx.cluster.nodes[owner], "kept"), "the owner lost the stream");
    let lasted = cut.elapsed();
    let during = ensure_below("pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    ctx.cluster.nodes[owner].host().restore_network()?;
    check_repeatedly(Duration::from_secs(1), || {
        ensure!(owns(&ctx.cluster.nodes[owner], "kept"), "the owner lost the stream");
        Ok(())
    })?;
    let after = ensure_below("after the repair", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    Ok(format!("refused 5 times in {:.1} s; {during}, {after}", lasted.as_secs_f64()))
}

/// From the return of the publisher to the next frame or part.
const MAX_GAP: Duration = Duration::from_secs(4);
/// The same in the short form, which runs on machines that are busy with other tests.
const MAX_GAP_SHORT: Duration = Duration::from_secs(6);
