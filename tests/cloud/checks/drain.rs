//! Auto Scaling ends a node: it drains, passes its hook, and leaves nobody behind.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::autoscaling::{Instance, Lifecycle};
use headwater_tests::wait;

use super::Stage;
use super::watch::{below, whep_pauses};
use crate::node::Role;
use crate::viewers::{Hls, Kind};

/// An origin: its publisher is asked to come back, elsewhere.
pub(super) fn origin(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (publisher, first) = stage.publish("drain")?;
    let edges = stage.edges();
    let mut whep = stage.whep(&edges, "drain")?;
    whep_pauses(&whep, 25)?;
    let id = stage.scene.nodes[first].id().to_owned();
    stage.scene.groups.wait(&id, PATIENCE, "protection", |i| i.protected.then_some(()))?;
    // Scale-in passes over it: it takes the other one, or nobody.
    let chosen = stage.scene.groups.scale_in("origins");
    ensure!(chosen.as_deref() != Some(id.as_str()), "a protected instance was scaled in");
    let other = stage.scene.all(Role::Origin).into_iter().find(|at| *at != first).context("one origin only")?;
    if let Some(chosen) = chosen {
        stage.scene.groups.wait(&chosen, PATIENCE, "its end", gone)?;
        stage.scene.relaunch(other)?;
    }
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    stage.scene.groups.terminate(&id)?;
    let begun = Instant::now();
    stage.wait_owner("drain", Some(first)).context("the publisher's return")?;
    let back = begun.elapsed();
    let pauses = below("pauses", &whep_pauses(&whep, 75)?, Duration::from_secs(3))?;
    let (heartbeats, completed) = stage.scene.groups.wait(&id, PATIENCE, "its end", |i| {
        (i.lifecycle == Lifecycle::Terminated).then_some((i.heartbeats, i.completed))
    })?;
    ensure!(completed, "the hook was left to its time-out");
    ensure!(publisher.starts() >= 2, "the publisher was never asked to go");
    stage.scene.nodes[first].daemon()?.exit(PATIENCE)?;
    Ok(format!(
        "protected from scale-in; publisher elsewhere after {:.1} s, {pauses}; hook passed after {:.1} s, {heartbeats} heartbeats",
        back.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    ))
}

/// An edge: its viewers go elsewhere before they are cut.
pub(super) fn edge(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (_publisher, _) = stage.publish("drain")?;
    let edges = stage.edges();
    let (first, others) = edges.split_first().context("no edges")?;
    let mut whep = stage.whep(others, "drain")?;
    let balancer = stage.scene.http.address();
    let hls = Hls::start(&stage.scene.runtime, Kind::LowLatency, &[balancer], "drain", 6);
    wait::until("HLS through the balancer", || (hls.seen().media >= 12).then_some(()))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    hls.mark();
    let id = stage.scene.nodes[*first].id().to_owned();
    stage.scene.groups.terminate(&id)?;
    let begun = Instant::now();
    let completed = stage.scene.groups.wait(&id, PATIENCE, "its end", gone)?;
    ensure!(completed, "the hook was left to its time-out");
    let took = begun.elapsed();
    let pauses = below("others' pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    let media = hls.seen().media;
    wait::until("HLS to go on", || (hls.seen().media > media + 30).then_some(()))?;
    let seen = hls.seen();
    ensure!(seen.status(404) == 0, "HLS through the balancer: {seen:?}");
    let pause = below("LL-HLS pause", &[seen.pause], Duration::from_secs(3))?;
    Ok(format!("hook passed after {:.1} s; {pauses}; {pause}", took.as_secs_f64()))
}

fn gone(instance: &Instance) -> Option<bool> {
    (instance.lifecycle == Lifecycle::Terminated).then_some(instance.completed)
}

const PATIENCE: Duration = Duration::from_secs(40);
