//! An edge that dies: killed, so that its connections break and new ones are refused, or frozen, so
//! that it accepts connections and answers nothing. All viewers but two are its own.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use headwater_tests::wait;
use nix::sys::signal::Signal;

use super::CheckContext;
use super::steps::{ensure_below, whep_pauses};
use crate::viewers::Audience;

/// SIGKILL to daemon and engine.
pub(super) fn killed(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    fail(ctx, "edge-killed", |ctx, at| {
        ctx.cluster.nodes[at].kill();
        Ok(())
    })
}

/// SIGSTOP to daemon and engine.
pub(super) fn frozen(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    fail(ctx, "edge-frozen", |ctx, at| {
        ctx.cluster.nodes[at].signal(Signal::SIGSTOP);
        Ok(())
    })
}

/// The host loses its network: not even connections are refused.
pub(super) fn vanished(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    fail(ctx, "edge-vanished", |ctx, at| ctx.cluster.nodes[at].host().set_packet_loss(100))
}

fn fail(
    ctx: &mut CheckContext<'_>,
    id: &str,
    fault: impl FnOnce(&mut CheckContext<'_>, usize) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let (_publisher, _) = ctx.publish(id)?;
    let edges = ctx.edges();
    let (lost, others) = edges.split_first().context("no edges")?;
    let mut whep = ctx.start_whep_viewers(others, id)?;
    // While no other edge is registered, the load balancer sends every viewer to this one.
    others.iter().for_each(|at| ctx.cluster.deregister(&ctx.cluster.nodes[*at]));
    let balancer = ctx.cluster.http_balancer.address();
    let audience = Audience::start(&ctx.cluster.runtime, balancer, ctx.cluster.gateway(), id, VIEWERS);
    others.iter().for_each(|at| ctx.cluster.register(&ctx.cluster.nodes[*at]));
    let audience = audience?;
    wait::until("healthy edges", || (ctx.cluster.http_balancer.healthy_count() == edges.len()).then_some(()))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    let before = audience.pauses()?;
    audience.reset_pauses()?;

    fault(ctx, *lost)?;
    // The LL-HLS viewers count as paused long before the last WebRTC viewer has another session.
    let pauses = wait::until("all viewers to play again", || {
        let pauses = audience.pauses().ok()?;
        let all_moved = pauses.sessions >= before.sessions + Audience::webrtc_count(VIEWERS);
        (all_moved && pauses.playing == VIEWERS as usize).then_some(pauses)
    })?;
    let (count, max) = (pauses.count_below(MAX_PAUSE_OF_MOST), pauses.max());
    let figure = format!(
        "{count} of {VIEWERS} viewers play again within {} s, all within {:.1} s (median {:.1} s)",
        MAX_PAUSE_OF_MOST.as_secs(),
        max.as_secs_f64(),
        pauses.median().as_secs_f64()
    );
    ensure!(count >= MOST && max < MAX_PAUSE, "{figure}");
    let others = ensure_below("others' WebRTC pauses", &whep_pauses(&whep, 50)?, Duration::from_secs(1))?;
    Ok(format!("{figure}; {others}"))
}

/// Viewers of the edge, half of them over WebRTC.
const VIEWERS: u32 = 100;
/// So many of them play again within this time,
const MOST: usize = 95;
const MAX_PAUSE_OF_MOST: Duration = Duration::from_secs(3);
/// and all of them within this time.
const MAX_PAUSE: Duration = Duration::from_secs(12);
