//! The database dies, comes back, is late, or says nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::delay::Manner;
use headwater_tests::wait;

use super::watch::{below, hold, owns, rtmp_pauses, wait_shown, whep_pauses};
use super::{Extent, Stage};
use crate::node::Node;
use crate::viewers::Publisher;

/// Killed, and back after 20 s (ten minutes if long).
pub(super) fn killed(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let away = match stage.options.extent {
        Extent::Short => Duration::from_secs(8),
        Extent::Full => Duration::from_secs(20),
        Extent::Long => Duration::from_secs(600),
    };
    let (_publisher, owner) = stage.publish("db")?;
    let edges = stage.edges();
    let mut whep = stage.whep(&edges, "db")?;
    let rtmp = stage.rtmp(&edges, "db")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    rtmp.iter().for_each(|(_, player)| player.mark());
    let lines: Vec<usize> = stage.scene.nodes.iter().map(|n| n.daemon().map_or(0, |d| d.line_count())).collect();

    stage.scene.registry.kill()?;
    let killed = Instant::now();
    // Known streams can be joined, unknown ones published.
    let late = stage.whep(&edges[..1], "db").context("joining a known stream without the database")?;
    let asked = Instant::now();
    let fresh = Publisher::start(&stage.scene.publish_url("live/fresh"))?;
    let origin = stage.wait_owner("fresh", None).context("publishing without the database")?;
    let accepted = asked.elapsed();
    hold(away.saturating_sub(killed.elapsed()), || {
        ensure!(whep.iter().all(|(_, viewer)| viewer.is_running()), "a viewer has ended");
        Ok(())
    })?;
    whep_pauses(&late, 5)?;

    stage.scene.registry.restart()?;
    let back = Instant::now();
    // Each node writes again: the daemon its entry, the engine its claims.
    let mut written = Vec::new();
    for (node, line) in stage.scene.nodes.iter().zip(lines) {
        node.daemon()?.nth_line(line, "registry is back").with_context(|| node.name.clone())?;
        written.push(back.elapsed());
    }
    let edge = &stage.scene.nodes[edges[edges.len() - 1]];
    wait::until("the new stream from an edge", || shown(edge, "fresh"))?;
    let found = back.elapsed();
    let webrtc = below("WebRTC", &whep_pauses(&whep, 25)?, UNNOTICED)?;
    let rtmp = below("RTMP", &rtmp_pauses(&rtmp, 25)?, UNNOTICED)?;
    let found = below("its stream on an edge after", &[found], BACK)?;
    let written = below("written again after", &[written.iter().max().copied().unwrap_or_default()], BACK)?;
    ensure!(owns(&stage.scene.nodes[owner], "db") && owns(&stage.scene.nodes[origin], "fresh"), "an owner has changed");
    drop(fresh);
    Ok(format!(
        "{} s away: 0 sessions interrupted, pauses: {webrtc}; {rtmp}; new publisher taken in {:.2} s; {written}, {found}",
        away.as_secs(),
        accepted.as_secs_f64()
    ))
}

/// The stream's playlist, if this node has it.
pub(super) fn shown(node: &Node, id: &str) -> Option<()> {
    let answer = headwater_tests::http::get(node.http(), &format!("/live/streams/{id}/playlist.m3u8")).ok()?;
    (answer.status == 200).then_some(())
}

/// Answers 2 s late; then takes connections and says nothing at all.
pub(super) fn slow(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    if stage.scene.registry.line().is_none() {
        return Ok("left out: registry nodes are reached directly, and there is no line to slow".to_owned());
    }
    let (_publisher, _) = stage.publish("slow")?;
    let edges = stage.edges();
    let mut whep = stage.whep(&edges, "slow")?;
    let mut figures = Vec::new();
    for (what, manner) in [("2 s late", Manner::Late(Duration::from_secs(2))), ("silent", Manner::Silent)] {
        whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
        set(stage, manner);
        let id = if manner == Manner::Silent { "silent" } else { "late" };
        let asked = Instant::now();
        let _new = Publisher::start(&stage.scene.publish_url(&format!("live/{id}")))?;
        stage.wait_owner(id, None).with_context(|| format!("publishing while the database is {what}"))?;
        let accepted = asked.elapsed();
        let asked = Instant::now();
        stage.whep(&edges[..1], "slow").with_context(|| format!("joining while the database is {what}"))?;
        let joined = asked.elapsed();
        whep_pauses(&whep, 100)?;
        // Leases are longer than this; nobody may lose one for it.
        hold(Duration::from_secs(6), || Ok(()))?;
        let pauses = below("pauses", &whep_pauses(&whep, 1)?, UNNOTICED)?;
        figures.push(format!(
            "{what}: {pauses}, published in {:.1} s, joined in {:.1} s",
            accepted.as_secs_f64(),
            joined.as_secs_f64()
        ));
        set(stage, Manner::Late(Duration::ZERO));
        let edge = &stage.scene.nodes[edges[0]];
        wait::until("the new stream from an edge", || shown(edge, id))?;
        wait_shown(edge, id)?;
    }
    Ok(figures.join("; "))
}

fn set(stage: &Stage<'_>, manner: Manner) {
    if let Some(line) = stage.scene.registry.line() {
        line.set(manner);
    }
}

/// A viewer does not see such a pause.
pub(super) const UNNOTICED: Duration = Duration::from_secs(1);
/// All nodes write again within this.
pub(super) const BACK: Duration = Duration::from_secs(10);
