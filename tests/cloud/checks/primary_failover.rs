//! The primary of the registry's replica set is killed and returns as a member.

use std::time::{Instant, SystemTime};

use anyhow::{Context as _, ensure};
use headwater_tests::wait;
use mongodb::bson::{DateTime, Document};

use super::CheckContext;
use super::database::{MAX_UNNOTICED_PAUSE, RECOVERY_TIMEOUT, has_playlist};
use super::ownership::STREAM_LEASE;
use super::steps::{ensure_below, owns, rtmp_pauses, whep_pauses};
use crate::registry::ReplicaSet;
use crate::viewers::Publisher;

/// SIGKILL to daemon and database of the primary. Playback continues, and writes
/// go to another primary.
pub(super) fn killed(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, owner) = ctx.publish("set")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "set")?;
    let rtmp = ctx.start_rtmp_players(&edges, "set")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    rtmp.iter().for_each(|(_, player)| player.reset_pauses());

    let set = ctx.cluster.registry.replica_set_mut().context("the registry is not a replica set")?;
    let killed_member = set.primary().context("no primary to kill")?;
    set.members_mut()[killed_member].kill();
    let (killed, time) = (Instant::now(), SystemTime::now());
    let fresh = Publisher::start(&ctx.cluster.publish_url("live/set-fresh"))?;
    let origin = ctx.wait_owner("set-fresh", None).context("publishing without a primary")?;
    let accepted = killed.elapsed();

    let set = ctx.cluster.registry.replica_set().context("the registry is not a replica set")?;
    let new_primary = wait::until("another primary", || set.primary())?;
    let elected = killed.elapsed();
    ensure!(new_primary != killed_member, "the killed member is still the primary");
    let edge = &ctx.cluster.nodes[edges[edges.len() - 1]];
    wait::until("the new stream from an edge", || has_playlist(edge, "set-fresh"))?;
    let found = killed.elapsed();
    // Each daemon renews its node entry, and each engine the leases of its streams.
    let running = set.members().iter().filter(|member| member.is_running());
    let ids: Vec<&str> = ctx.cluster.nodes.iter().chain(running).map(|node| node.id()).collect();
    let streams = ["live/set", "live/set-fresh"];
    wait::until("every node's writes", || {
        let entries = all_written_after(set, "nodes", &ids, "heard_at", time)?;
        (entries && all_written_after(set, "streams", &streams, "lease_until", time + STREAM_LEASE)?).then_some(())
    })?;
    let written = killed.elapsed();

    let set = ctx.cluster.registry.replica_set_mut().context("the registry is not a replica set")?;
    let started = Instant::now();
    set.start_member(killed_member)?;
    let state = set.wait_member(killed_member)?;
    let returned = started.elapsed();
    let webrtc = ensure_below("WebRTC", &whep_pauses(&whep, 25)?, MAX_UNNOTICED_PAUSE)?;
    let rtmp = ensure_below("RTMP", &rtmp_pauses(&rtmp, 25)?, MAX_UNNOTICED_PAUSE)?;
    let found = ensure_below("its stream on an edge after", &[found], RECOVERY_TIMEOUT)?;
    let written = ensure_below("every node has written after", &[written], RECOVERY_TIMEOUT)?;
    ensure!(
        owns(&ctx.cluster.nodes[owner], "set") && owns(&ctx.cluster.nodes[origin], "set-fresh"),
        "an owner has changed"
    );
    drop(fresh);
    Ok(format!(
        "another primary within {:.2} s: 0 sessions interrupted, pauses: {webrtc}; {rtmp}; \
         new publisher accepted in {:.2} s; {found}, {written}; restarted, it is {state} after {:.1} s",
        elected.as_secs_f64(),
        accepted.as_secs_f64(),
        returned.as_secs_f64()
    ))
}

/// True if `field` is later than `time` in all of these documents; `None` if they
/// cannot be read now.
fn all_written_after(set: &ReplicaSet, collection: &str, ids: &[&str], field: &str, time: SystemTime) -> Option<bool> {
    let documents = set.documents(collection).ok()?;
    let updated = |id: &&str| {
        let matches_id = |document: &&Document| document.get_str("_id").is_ok_and(|found| found == *id);
        let document = documents.iter().find(matches_id)?;
        document.get_datetime(field).ok().filter(|at| **at > DateTime::from_system_time(time))
    };
    Some(ids.iter().all(|id| updated(id).is_some()))
}
