//! The database is killed and returns, is slow, or stops responding.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::delay_proxy::DelayMode;
use headwater_tests::wait;

use super::steps::{check_repeatedly, ensure_below, owns, rtmp_pauses, wait_live, whep_pauses};
use super::{CheckContext, CheckLevel};
use crate::node::Node;
use crate::viewers::Publisher;

/// The database is killed and returns after 20 s (8 s in the short form, ten minutes
/// in the long form).
pub(super) fn killed(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let outage = match ctx.options.level {
        CheckLevel::Short => Duration::from_secs(8),
        CheckLevel::Full => Duration::from_secs(20),
        CheckLevel::Long => Duration::from_secs(600),
    };
    let (_publisher, owner) = ctx.publish("db")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "db")?;
    let rtmp = ctx.start_rtmp_players(&edges, "db")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    rtmp.iter().for_each(|(_, player)| player.reset_pauses());
    let lines: Vec<usize> = ctx.cluster.nodes.iter().map(|n| n.daemon().map_or(0, |d| d.line_count())).collect();

    ctx.cluster.registry.kill()?;
    let killed = Instant::now();
    // Viewers can join known streams, and publishers can publish new ones.
    let late_joiners =
        ctx.start_whep_viewers(&edges[..1], "db").context("joining a known stream without the database")?;
    let started = Instant::now();
    let fresh = Publisher::start(&ctx.cluster.publish_url("live/fresh"))?;
    let origin = ctx.wait_owner("fresh", None).context("publishing without the database")?;
    let accepted = started.elapsed();
    check_repeatedly(outage.saturating_sub(killed.elapsed()), || {
        ensure!(whep.iter().all(|(_, viewer)| viewer.is_running()), "a viewer has ended");
        Ok(())
    })?;
    whep_pauses(&late_joiners, 5)?;

    ctx.cluster.registry.restart()?;
    let restarted = Instant::now();
    // Each node writes again: the daemon its node entry, the engine its claims.
    let mut written = Vec::new();
    for (node, line) in ctx.cluster.nodes.iter().zip(lines) {
        node.daemon()?.wait_line_from(line, "registry is reachable again").with_context(|| node.name.clone())?;
        written.push(restarted.elapsed());
    }
    let edge = &ctx.cluster.nodes[edges[edges.len() - 1]];
    wait::until("the new stream from an edge", || has_playlist(edge, "fresh"))?;
    let found = restarted.elapsed();
    let webrtc = ensure_below("WebRTC", &whep_pauses(&whep, 25)?, MAX_UNNOTICED_PAUSE)?;
    let rtmp = ensure_below("RTMP", &rtmp_pauses(&rtmp, 25)?, MAX_UNNOTICED_PAUSE)?;
    let found = ensure_below("its stream on an edge after", &[found], RECOVERY_TIMEOUT)?;
    let written =
        ensure_below("written again after", &[written.iter().max().copied().unwrap_or_default()], RECOVERY_TIMEOUT)?;
    ensure!(owns(&ctx.cluster.nodes[owner], "db") && owns(&ctx.cluster.nodes[origin], "fresh"), "an owner has changed");
    drop(fresh);
    Ok(format!(
        "{} s outage: 0 sessions interrupted, pauses: {webrtc}; {rtmp}; new publisher accepted in {:.2} s; \
         {written}, {found}",
        outage.as_secs(),
        accepted.as_secs_f64()
    ))
}

/// `Some` if this node serves the stream's playlist.
pub(super) fn has_playlist(node: &Node, id: &str) -> Option<()> {
    let answer = headwater_tests::http::get(node.http(), &format!("/live/streams/{id}/playlist.m3u8")).ok()?;
    (answer.status == 200).then_some(())
}

/// The database answers 2 s late, then accepts connections without ever answering.
pub(super) fn slow(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    if ctx.cluster.registry.proxy().is_none() {
        return Ok("skipped: registry nodes have no proxy that could delay them".to_owned());
    }
    let (_publisher, _) = ctx.publish("slow")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "slow")?;
    let mut figures = Vec::new();
    for (what, mode) in [("2 s late", DelayMode::Delayed(Duration::from_secs(2))), ("unresponsive", DelayMode::Stalled)]
    {
        whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
        set_delay_mode(ctx, mode);
        let id = if mode == DelayMode::Stalled { "unresponsive" } else { "late" };
        let started = Instant::now();
        let _new = Publisher::start(&ctx.cluster.publish_url(&format!("live/{id}")))?;
        ctx.wait_owner(id, None).with_context(|| format!("publishing while the database is {what}"))?;
        let accepted = started.elapsed();
        let started = Instant::now();
        ctx.start_whep_viewers(&edges[..1], "slow").with_context(|| format!("joining while the database is {what}"))?;
        let joined = started.elapsed();
        whep_pauses(&whep, 100)?;
        // This is shorter than a lease; no node may lose one.
        check_repeatedly(Duration::from_secs(6), || Ok(()))?;
        let pauses = ensure_below("pauses", &whep_pauses(&whep, 1)?, MAX_UNNOTICED_PAUSE)?;
        figures.push(format!(
            "{what}: {pauses}, published in {:.1} s, joined in {:.1} s",
            accepted.as_secs_f64(),
            joined.as_secs_f64()
        ));
        set_delay_mode(ctx, DelayMode::Delayed(Duration::ZERO));
        let edge = &ctx.cluster.nodes[edges[0]];
        wait::until("the new stream from an edge", || has_playlist(edge, id))?;
        wait_live(edge, id)?;
    }
    Ok(figures.join("; "))
}

fn set_delay_mode(ctx: &CheckContext<'_>, mode: DelayMode) {
    if let Some(proxy) = ctx.cluster.registry.proxy() {
        proxy.set_mode(mode);
    }
}

/// Longest pause that counts as unnoticed by a viewer.
pub(super) const MAX_UNNOTICED_PAUSE: Duration = Duration::from_secs(1);
/// All nodes must write again within this time.
pub(super) const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);
