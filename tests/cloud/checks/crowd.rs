//! Many LL-HLS players behind a balancer that gives each request to the next edge.

use std::time::Duration;

use anyhow::ensure;

use super::watch::hold;
use super::{Extent, Stage};
use crate::viewers::{Hls, Kind};

pub(super) fn round_robin(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (seconds, players) = match stage.options.extent {
        // As many as a machine can feed that runs other tests as well.
        Extent::Short => (10, stage.options.players.min(50)),
        Extent::Full => (60, stage.options.players),
        Extent::Long => (600, stage.options.players),
    };
    let time = Duration::from_secs(seconds);
    let (_publisher, _) = stage.publish("crowd")?;
    let servers: Vec<_> = stage.edges().into_iter().map(|at| stage.scene.nodes[at].http()).collect();
    let crowd = Hls::start(&stage.scene.runtime, Kind::LowLatency, &servers, "crowd", players);
    hold(time, || Ok(()))?;
    let seen = crowd.seen();
    ensure!(seen.refused() == 0 && seen.broken == 0, "{players} players: {seen:?}");
    // Five parts a second; a machine that is too slow makes players skip, and that would prove less.
    let parts_each = seen.media as f64 / f64::from(players) / time.as_secs_f64();
    ensure!(parts_each > 2.5, "only {parts_each:.1} parts a second and player: too busy to tell");
    Ok(format!(
        "{players} players, {} s, {} edges: {} requests, {} parts ({parts_each:.1}/s each), 0 x 404, longest pause {:.1} s",
        time.as_secs(),
        servers.len(),
        seen.answers.values().sum::<u64>(),
        seen.media,
        seen.pause.as_secs_f64()
    ))
}
