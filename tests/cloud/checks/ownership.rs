//! A stream has one owner, whatever two nodes believe.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::wait;
use nix::sys::signal::Signal;

use super::CheckContext;
use super::steps::{check_repeatedly, ensure_below, owns, whep_pauses};
use crate::node::Role;
use crate::viewers::Publisher;

/// Two publishers publish the same name to two origins at the same time.
pub(super) fn concurrent_claims(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let origins = ctx.cluster.nodes_with_role(Role::Origin);
    let rounds = 4;
    for round in 0..rounds {
        let id = format!("claim{round}");
        let both: Vec<_> = origins
            .iter()
            .map(|at| Publisher::start(&ctx.cluster.nodes[*at].publish_url(&format!("live/{id}"))))
            .collect::<anyhow::Result<_>>()?;
        let owner = ctx.wait_owner(&id, None)?;
        // The refused publisher retries.
        wait::until("the other publisher to be refused twice", || {
            both.iter().any(|p| p.start_count() >= 3).then_some(())
        })?;
        let owners: Vec<_> = origins.iter().filter(|at| owns(&ctx.cluster.nodes[**at], &id)).collect();
        ensure!(owners == [&owner], "{id} has {} owners", owners.len());
    }
    Ok(format!("{rounds} rounds, 1 owner each"))
}

/// An origin is frozen, another origin takes over the stream for a second publisher, and the first
/// resumes with its publisher still connected.
pub(super) fn frozen_origin(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, first) = ctx.publish("frozen")?;
    let origins = ctx.cluster.nodes_with_role(Role::Origin);
    let other = origins.iter().copied().find(|at| *at != first).context("fewer than two origins")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "frozen")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    ctx.cluster.nodes[first].signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    // Its publisher gets no response from the frozen node and stays connected;
    // a second publisher connects.
    let _second = Publisher::start(&ctx.cluster.nodes[other].publish_url("live/frozen"))?;
    let second = ctx.wait_owner("frozen", Some(first)).context("another owner")?;
    let taken = stopped.elapsed();
    let pauses = ensure_below("pauses", &whep_pauses(&whep, 50)?, STREAM_LEASE + Duration::from_secs(6))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    ctx.cluster.nodes[first].signal(Signal::SIGCONT);
    let thawed = Instant::now();
    wait::until("the first owner to release the stream", || {
        (!owns(&ctx.cluster.nodes[first], "frozen")).then_some(())
    })?;
    let fenced = thawed.elapsed();
    check_repeatedly(Duration::from_secs(6), || {
        ensure!(owns(&ctx.cluster.nodes[second], "frozen"), "the second owner lost the stream");
        ensure!(!owns(&ctx.cluster.nodes[first], "frozen"), "two owners");
        Ok(())
    })?;
    let after = ensure_below("pauses after the thaw", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    Ok(format!(
        "taken over after {:.1} s, {pauses}; thawed: one owner after {:.1} s, {after}",
        taken.as_secs_f64(),
        fenced.as_secs_f64()
    ))
}

/// An origin cannot reach the database; the name becomes free once its lease has expired.
pub(super) fn partitioned_origin(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (publisher, first) = ctx.publish("split")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "split")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    for database in ctx.cluster.registry.addresses() {
        ctx.cluster.nodes[first].host().partition_from(database)?;
    }
    let cut = Instant::now();
    let origins = ctx.cluster.nodes_with_role(Role::Origin);
    let other = origins.iter().copied().find(|at| *at != first).context("fewer than two origins")?;
    // A second publisher uses the name, on a node that reaches the database.
    let second_publisher = Publisher::start(&ctx.cluster.nodes[other].publish_url("live/split"))?;
    ctx.wait_owner("split", Some(first)).context("the second publisher")?;
    let taken = cut.elapsed();
    ensure!(taken > STREAM_LEASE - Duration::from_secs(6), "taken after {taken:?}, before the lease expired");
    // Existing viewers keep playing from the origin that they already have.
    let during = ensure_below("pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    ctx.cluster.nodes[first].host().restore_network()?;
    let healed = Instant::now();
    wait::until("the first owner to release the stream", || (!owns(&ctx.cluster.nodes[first], "split")).then_some(()))?;
    let fenced = healed.elapsed();
    check_repeatedly(Duration::from_secs(3), || {
        ensure!(!owns(&ctx.cluster.nodes[first], "split"), "two owners");
        ensure!(owns(&ctx.cluster.nodes[other], "split"), "the second owner lost the stream");
        Ok(())
    })?;
    let after = ensure_below("pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(3))?;
    drop((publisher, second_publisher));
    Ok(format!(
        "taken over after {:.1} s, {during}; healed: one owner after {:.1} s, {after}",
        taken.as_secs_f64(),
        fenced.as_secs_f64()
    ))
}

/// Lease of a stream.
pub(super) const STREAM_LEASE: Duration = Duration::from_secs(15);
