//! One stream, one owner: whatever two nodes believe.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::wait;
use nix::sys::signal::Signal;

use super::Stage;
use super::watch::{below, hold, owns, whep_pauses};
use crate::node::Role;
use crate::viewers::Publisher;

/// Two publishers of one name, at two origins, at the same moment.
pub(super) fn two_claims(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let origins = stage.scene.all(Role::Origin);
    let rounds = 4;
    for round in 0..rounds {
        let id = format!("claim{round}");
        let both: Vec<_> = origins
            .iter()
            .map(|at| Publisher::start(&format!("rtmp://{}/live/{id}", stage.scene.nodes[*at].rtmp())))
            .collect::<anyhow::Result<_>>()?;
        let owner = stage.wait_owner(&id, None)?;
        // The other one tries again and again.
        wait::until("the other publisher to be refused twice", || both.iter().any(|p| p.starts() >= 3).then_some(()))?;
        let owners: Vec<_> = origins.iter().filter(|at| owns(&stage.scene.nodes[**at], &id)).collect();
        ensure!(owners == [&owner], "{id} has {} owners", owners.len());
    }
    Ok(format!("{rounds} rounds, 1 owner each"))
}

/// An origin stands still until its lease is over, another takes the stream, and then it goes on.
pub(super) fn frozen(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (_publisher, first) = stage.publish("frozen")?;
    let origins = stage.scene.all(Role::Origin);
    let other = origins.iter().copied().find(|at| *at != first).context("one origin only")?;
    let edges = stage.edges();
    let mut whep = stage.whep(&edges, "frozen")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    stage.scene.nodes[first].signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    // Its publisher hears nothing from a node that stands still, and stays; another one comes.
    let _second = Publisher::start(&format!("rtmp://{}/live/frozen", stage.scene.nodes[other].rtmp()))?;
    let second = stage.wait_owner("frozen", Some(first)).context("another owner")?;
    let taken = stopped.elapsed();
    let pauses = below("pauses", &whep_pauses(&whep, 50)?, LEASE + Duration::from_secs(6))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    stage.scene.nodes[first].signal(Signal::SIGCONT);
    let thawed = Instant::now();
    wait::until("the first owner to let go", || (!owns(&stage.scene.nodes[first], "frozen")).then_some(()))?;
    let fenced = thawed.elapsed();
    hold(Duration::from_secs(6), || {
        ensure!(owns(&stage.scene.nodes[second], "frozen"), "the second owner lost it");
        ensure!(!owns(&stage.scene.nodes[first], "frozen"), "two owners");
        Ok(())
    })?;
    let after = below("after its return", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    Ok(format!(
        "taken over after {:.1} s, {pauses}; thawed: one owner after {:.1} s, {after}",
        taken.as_secs_f64(),
        fenced.as_secs_f64()
    ))
}

/// An origin and the database do not reach each other; the name is taken elsewhere once the lease is over.
pub(super) fn split(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (publisher, first) = stage.publish("split")?;
    let edges = stage.edges();
    let mut whep = stage.whep(&edges, "split")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    for database in stage.scene.registry.addresses() {
        stage.scene.nodes[first].host().cut(database)?;
    }
    let cut = Instant::now();
    let origins = stage.scene.all(Role::Origin);
    let other = origins.iter().copied().find(|at| *at != first).context("one origin only")?;
    // Somebody else wants the name, at a node that sees the database.
    let rival = Publisher::start(&format!("rtmp://{}/live/split", stage.scene.nodes[other].rtmp()))?;
    stage.wait_owner("split", Some(first)).context("the rival")?;
    let taken = cut.elapsed();
    ensure!(taken > LEASE - Duration::from_secs(6), "taken after {taken:?}, while the lease lasted");
    // What is watched goes on from whom it is watched.
    let during = below("pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    stage.scene.nodes[first].host().heal()?;
    let healed = Instant::now();
    wait::until("the first owner to let go", || (!owns(&stage.scene.nodes[first], "split")).then_some(()))?;
    let fenced = healed.elapsed();
    hold(Duration::from_secs(3), || {
        ensure!(!owns(&stage.scene.nodes[first], "split"), "two owners");
        ensure!(owns(&stage.scene.nodes[other], "split"), "the second owner lost it");
        Ok(())
    })?;
    let after = below("pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(3))?;
    drop((publisher, rival));
    Ok(format!(
        "taken over after {:.1} s, {during}; healed: one owner after {:.1} s, {after}",
        taken.as_secs_f64(),
        fenced.as_secs_f64()
    ))
}

/// Of a stream.
pub(super) const LEASE: Duration = Duration::from_secs(15);
