//! Auto Scaling terminates a node: it drains, completes its lifecycle hook, and
//! leaves no client behind.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::autoscaling::{Instance, Lifecycle};
use headwater_tests::wait;

use super::CheckContext;
use super::steps::{ensure_below, whep_pauses};
use crate::node::Role;
use crate::viewers::{HlsPlayers, Kind};

/// A drained origin: its publisher reconnects to another origin.
pub(super) fn origin(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (publisher, first) = ctx.publish("drain")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "drain")?;
    whep_pauses(&whep, 25)?;
    let id = ctx.cluster.nodes[first].id().to_owned();
    ctx.cluster.groups.wait(&id, DRAIN_TIMEOUT, "protection", |i| i.protected.then_some(()))?;
    // Scale-in skips the protected instance: it selects the other one, or none.
    let chosen = ctx.cluster.groups.scale_in("origins");
    ensure!(chosen.as_deref() != Some(id.as_str()), "a protected instance was scaled in");
    let other = ctx
        .cluster
        .nodes_with_role(Role::Origin)
        .into_iter()
        .find(|at| *at != first)
        .context("fewer than two origins")?;
    if let Some(chosen) = chosen {
        ctx.cluster.groups.wait(&chosen, DRAIN_TIMEOUT, "termination", terminated)?;
        ctx.cluster.relaunch(other)?;
    }
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    ctx.cluster.groups.terminate(&id)?;
    let started = Instant::now();
    ctx.wait_owner("drain", Some(first)).context("the publisher's return")?;
    let moved = started.elapsed();
    let pauses = ensure_below("pauses", &whep_pauses(&whep, 75)?, Duration::from_secs(3))?;
    let (heartbeats, completed) = ctx.cluster.groups.wait(&id, DRAIN_TIMEOUT, "termination", |i| {
        (i.lifecycle == Lifecycle::Terminated).then_some((i.heartbeats, i.completed))
    })?;
    ensure!(completed, "the lifecycle hook timed out");
    ensure!(publisher.start_count() >= 2, "the publisher did not reconnect");
    ctx.cluster.nodes[first].daemon()?.wait_exit(DRAIN_TIMEOUT)?;
    Ok(format!(
        "protected from scale-in; publisher on another origin after {:.1} s, {pauses}; \
         hook completed after {:.1} s, {heartbeats} heartbeats",
        moved.as_secs_f64(),
        started.elapsed().as_secs_f64()
    ))
}

/// A drained edge: its viewers move to other edges before they are disconnected.
pub(super) fn edge(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, _) = ctx.publish("drain")?;
    let edges = ctx.edges();
    let (first, others) = edges.split_first().context("no edges")?;
    let mut whep = ctx.start_whep_viewers(others, "drain")?;
    let balancer = ctx.cluster.http_balancer.address();
    let hls = HlsPlayers::start(&ctx.cluster.runtime, Kind::LowLatency, &[balancer], "drain", 6);
    wait::until("HLS through the load balancer", || (hls.stats().fetched >= 12).then_some(()))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    hls.reset_pauses();
    let id = ctx.cluster.nodes[*first].id().to_owned();
    ctx.cluster.groups.terminate(&id)?;
    let started = Instant::now();
    let completed = ctx.cluster.groups.wait(&id, DRAIN_TIMEOUT, "termination", terminated)?;
    ensure!(completed, "the lifecycle hook timed out");
    let took = started.elapsed();
    let pauses = ensure_below("others' pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    let media = hls.stats().fetched;
    wait::until("HLS to continue", || (hls.stats().fetched > media + 30).then_some(()))?;
    let stats = hls.stats();
    ensure!(stats.count(404) == 0, "HLS through the load balancer: {stats:?}");
    let pause = ensure_below("LL-HLS pause", &[stats.longest_pause], Duration::from_secs(3))?;
    Ok(format!("hook completed after {:.1} s; {pauses}; {pause}", took.as_secs_f64()))
}

fn terminated(instance: &Instance) -> Option<bool> {
    (instance.lifecycle == Lifecycle::Terminated).then_some(instance.completed)
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(40);
