//! Auto Scaling terminates a node: it drains, completes its lifecycle hook, and leaves no client
//! behind.

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
    let mut whep = ctx.whep(&edges, "drain")?;
    whep_pauses(&whep, 25)?;
    let id = ctx.cluster.nodes[first].id().to_owned();
    ctx.cluster.groups.wait(&id, PATIENCE, "protection", |i| i.protected.then_some(()))?;
    // Scale-in skips the protected instance: it selects the other one, or none.
    let chosen = ctx.cluster.groups.scale_in("origins");
    ensure!(chosen.as_deref() != Some(id.as_str()), "a protected instance was scaled in");
    let other = ctx.cluster.nodes_with_role(Role::Origin).into_iter().find(|at| *at != first).context("one origin only")?;
    if let Some(chosen) = chosen {
        ctx.cluster.groups.wait(&chosen, PATIENCE, "its end", terminated)?;
        ctx.cluster.relaunch(other)?;
    }
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    ctx.cluster.groups.terminate(&id)?;
    let started = Instant::now();
    ctx.wait_owner("drain", Some(first)).context("the publisher's return")?;
    let back = started.elapsed();
    let pauses = ensure_below("pauses", &whep_pauses(&whep, 75)?, Duration::from_secs(3))?;
    let (heartbeats, completed) = ctx.cluster.groups.wait(&id, PATIENCE, "its end", |i| {
        (i.lifecycle == Lifecycle::Terminated).then_some((i.heartbeats, i.completed))
    })?;
    ensure!(completed, "the hook was left to its time-out");
    ensure!(publisher.starts() >= 2, "the publisher was never asked to go");
    ctx.cluster.nodes[first].daemon()?.exit(PATIENCE)?;
    Ok(format!(
        "protected from scale-in; publisher elsewhere after {:.1} s, {pauses}; hook passed after {:.1} s, {heartbeats} heartbeats",
        back.as_secs_f64(),
        started.elapsed().as_secs_f64()
    ))
}

/// A drained edge: its viewers move to other edges before they are disconnected.
pub(super) fn edge(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, _) = ctx.publish("drain")?;
    let edges = ctx.edges();
    let (first, others) = edges.split_first().context("no edges")?;
    let mut whep = ctx.whep(others, "drain")?;
    let balancer = ctx.cluster.http_balancer.address();
    let hls = HlsPlayers::start(&ctx.cluster.runtime, Kind::LowLatency, &[balancer], "drain", 6);
    wait::until("HLS through the balancer", || (hls.seen().media >= 12).then_some(()))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    hls.reset_pauses();
    let id = ctx.cluster.nodes[*first].id().to_owned();
    ctx.cluster.groups.terminate(&id)?;
    let started = Instant::now();
    let completed = ctx.cluster.groups.wait(&id, PATIENCE, "its end", terminated)?;
    ensure!(completed, "the hook was left to its time-out");
    let took = started.elapsed();
    let pauses = ensure_below("others' pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    let media = hls.seen().media;
    wait::until("HLS to go on", || (hls.seen().media > media + 30).then_some(()))?;
    let seen = hls.seen();
    ensure!(seen.status(404) == 0, "HLS through the balancer: {seen:?}");
    let pause = ensure_below("LL-HLS pause", &[seen.pause], Duration::from_secs(3))?;
    Ok(format!("hook passed after {:.1} s; {pauses}; {pause}", took.as_secs_f64()))
}

fn terminated(instance: &Instance) -> Option<bool> {
    (instance.lifecycle == Lifecycle::Terminated).then_some(instance.completed)
}

const PATIENCE: Duration = Duration::from_secs(40);
