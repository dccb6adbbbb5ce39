//! LL-HLS players behind a load balancer that sends each request to the next edge.

use std::time::Duration;

use anyhow::ensure;

use super::steps::check_repeatedly;
use super::{CheckContext, CheckLevel};
use crate::viewers::{HlsPlayers, Kind};

pub(super) fn round_robin(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (seconds, players) = match ctx.options.level {
        // Few enough for a machine that runs other tests at the same time.
        CheckLevel::Short => (10, ctx.options.players.min(50)),
        CheckLevel::Full => (60, ctx.options.players),
        CheckLevel::Long => (600, ctx.options.players),
    };
    let time = Duration::from_secs(seconds);
    let (_publisher, _) = ctx.publish("round-robin")?;
    let servers: Vec<_> = ctx.edges().into_iter().map(|at| ctx.cluster.nodes[at].http()).collect();
    let hls = HlsPlayers::start(&ctx.cluster.runtime, Kind::LowLatency, &servers, "round-robin", players);
    check_repeatedly(time, || Ok(()))?;
    let stats = hls.stats();
    ensure!(stats.error_responses() == 0 && stats.failed_requests == 0, "{players} players: {stats:?}");
    // The stream has five parts per second. On a slow machine players skip parts,
    // which would prove less.
    let parts_each = stats.fetched as f64 / f64::from(players) / time.as_secs_f64();
    ensure!(parts_each > 2.5, "only {parts_each:.1} parts per second and player: the machine is too busy");
    Ok(format!(
        "{players} players, {} s, {} edges: {} requests, {} parts ({parts_each:.1}/s each), 0 x 404, \
         longest pause {:.1} s",
        time.as_secs(),
        servers.len(),
        stats.responses.values().sum::<u64>(),
        stats.fetched,
        stats.longest_pause.as_secs_f64()
    ))
}
