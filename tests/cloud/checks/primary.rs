//! The primary of the registry's replica set dies, and comes back as a member.

use std::time::{Instant, SystemTime};

use anyhow::{Context as _, ensure};
use headwater_tests::wait;
use mongodb::bson::{DateTime, Document};

use super::Stage;
use super::database::{BACK, UNNOTICED, shown};
use super::fence::LEASE;
use super::watch::{below, owns, rtmp_pauses, whep_pauses};
use crate::registry::Set;
use crate::viewers::Publisher;

/// Daemon and database of the primary: SIGKILL. What plays goes on, and all that is to be written is written by another.
pub(super) fn killed(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (_publisher, owner) = stage.publish("set")?;
    let edges = stage.edges();
    let mut whep = stage.whep(&edges, "set")?;
    let rtmp = stage.rtmp(&edges, "set")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    rtmp.iter().for_each(|(_, player)| player.mark());

    let set = stage.scene.registry.set_mut().context("the registry is no set")?;
    let dead = set.primary().context("no primary to kill")?;
    set.members_mut()[dead].kill();
    let (killed, time) = (Instant::now(), SystemTime::now());
    let fresh = Publisher::start(&stage.scene.publish_url("live/set-fresh"))?;
    let origin = stage.wait_owner("set-fresh", None).context("publishing without a primary")?;
    let accepted = killed.elapsed();

    let set = stage.scene.registry.set().context("the registry is no set")?;
    let heir = wait::until("another primary", || set.primary())?;
    let elected = killed.elapsed();
    ensure!(heir != dead, "the dead one is the primary");
    let edge = &stage.scene.nodes[edges[edges.len() - 1]];
    wait::until("the new stream from an edge", || shown(edge, "set-fresh"))?;
    let found = killed.elapsed();
    // Each daemon renews its entry, and the engine the leases of its streams.
    let alive = set.members().iter().filter(|member| member.is_running());
    let ids: Vec<&str> = stage.scene.nodes.iter().chain(alive).map(|node| node.id()).collect();
    let streams = ["live/set", "live/set-fresh"];
    wait::until("every node's writes", || {
        let entries = is_after(set, "nodes", &ids, "heard_at", time)?;
        (entries && is_after(set, "streams", &streams, "lease_until", time + LEASE)?).then_some(())
    })?;
    let written = killed.elapsed();

    let set = stage.scene.registry.set_mut().context("the registry is no set")?;
    let started = Instant::now();
    set.start_member(dead)?;
    let standing = set.wait_member(dead)?;
    let returned = started.elapsed();
    let webrtc = below("WebRTC", &whep_pauses(&whep, 25)?, UNNOTICED)?;
    let rtmp = below("RTMP", &rtmp_pauses(&rtmp, 25)?, UNNOTICED)?;
    let found = below("its stream on an edge after", &[found], BACK)?;
    let written = below("every node has written after", &[written], BACK)?;
    ensure!(
        owns(&stage.scene.nodes[owner], "set") && owns(&stage.scene.nodes[origin], "set-fresh"),
        "an owner has changed"
    );
    drop(fresh);
    Ok(format!(
        "another is it within {:.2} s: 0 sessions interrupted, pauses: {webrtc}; {rtmp}; new publisher taken in {:.2} s; \
         {found}, {written}; started again, it is {standing} after {:.1} s",
        elected.as_secs_f64(),
        accepted.as_secs_f64(),
        returned.as_secs_f64()
    ))
}

/// True if all of these documents have a later time there; `None` if it cannot be read now.
fn is_after(set: &Set, collection: &str, ids: &[&str], field: &str, time: SystemTime) -> Option<bool> {
    let documents = set.documents(collection).ok()?;
    let later = |id: &&str| {
        let is_it = |document: &&Document| document.get_str("_id").is_ok_and(|found| found == *id);
        let document = documents.iter().find(is_it)?;
        document.get_datetime(field).ok().filter(|at| **at > DateTime::from_system_time(time))
    };
    Some(ids.iter().all(|id| later(id).is_some()))
}
