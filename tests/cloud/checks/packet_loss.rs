//! A network that silently drops packets.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use headwater_tests::wait;

use super::steps::{check_repeatedly, ensure_below, rtmp_pauses, whep_pauses};
use super::{CheckContext, CheckLevel};
use crate::viewers::{HlsPlayers, Kind};

/// Packet loss on the link of one edge, to its viewers and to the origin: WebRTC viewers receive
/// the retransmissions that they request (RFC 4585 §6.2.1), and TCP retransmits for all others.
pub(super) fn edge_link(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, _) = ctx.publish("loss")?;
    let edges = ctx.edges();
    let [lossy, other, ..] = edges[..] else { bail!("fewer than two edges") };
    let node = &ctx.cluster.nodes[lossy];
    let hls = HlsPlayers::start(&ctx.cluster.runtime, Kind::LowLatency, &[node.http()], "loss", 1);
    let mut whep = ctx.start_whep_viewers(&[[lossy; VIEWERS].as_slice(), &[other]].concat(), "loss")?;
    let rtmp = ctx.start_rtmp_players(&[lossy], "loss")?;
    wait::until("LL-HLS from the edge", || (hls.stats().fetched >= 2).then_some(()))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    rtmp.iter().for_each(|(_, player)| player.reset_pauses());
    hls.reset_pauses();
    let (media, lines) = (hls.stats().fetched, node.daemon()?.line_count());

    node.host().set_packet_loss(LOSS_PERCENT)?;
    let time = Duration::from_secs(if ctx.options.level == CheckLevel::Short { 2 } else { 30 });
    let (whep, unaffected) = whep.split_at(VIEWERS);
    check_repeatedly(time, || whep.iter().try_for_each(|(_, viewer)| viewer.losses().map(drop)))?;
    node.host().restore_network()?;

    let losses = || whep.iter().map(|(_, viewer)| viewer.losses()).collect::<anyhow::Result<Vec<_>>>();
    let nothing_missing = || losses().ok().filter(|all| all.iter().all(|l| l.missing == 0)).map(drop);
    wait::until_within(RETRANSMISSION_TIMEOUT, "retransmissions", nothing_missing)
        .with_context(|| format!("{:?}", losses()))?;
    whep_pauses(whep, 10).context("WebRTC after the packet loss")?;
    let losses = losses()?;
    let late: u64 = losses.iter().map(|l| l.late).sum();
    ensure!(late > 0, "no WebRTC viewer has lost a packet: the check proves nothing");
    let pauses = ensure_below("WebRTC", &losses.iter().map(|l| l.pause).collect::<Vec<_>>(), MAX_PAUSE)?;
    let rtmp = ensure_below("RTMP", &rtmp_pauses(&rtmp, 10)?, MAX_PAUSE)?;
    let stats = hls.stats();
    ensure!(stats.error_responses() == 0 && stats.failed_requests == 0 && stats.fetched > media, "LL-HLS: {stats:?}");
    let low = ensure_below("LL-HLS", &[stats.longest_pause], MAX_LL_HLS_PAUSE)?;
    let others = ensure_below("other edge", &whep_pauses(unaffected, 1)?, MAX_PAUSE)?;
    let lost_sources =
        node.daemon()?.lines_from(lines).iter().filter(|line| line.contains("relay source lost")).count();
    ensure!(lost_sources == 0, "the edge lost its link to the origin {lost_sources} times");
    Ok(format!(
        "{LOSS_PERCENT} % each way for {} s: {late} packets of {VIEWERS} WebRTC viewers were retransmitted, \
         0 are missing; pauses between frames: {pauses}; {rtmp}; {low}; {others}; the relay link stayed open",
        time.as_secs()
    ))
}

const VIEWERS: usize = 3;
/// Typical of a bad wireless network.
const LOSS_PERCENT: u8 = 3;
/// A viewer sends a NACK every 100 ms and may have to repeat it.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Any request or response of a player may be lost, and TCP doubles its timeout each
/// time (RFC 6298 §5.5).
const MAX_LL_HLS_PAUSE: Duration = Duration::from_secs(2);
/// Lower bound of the time for which the engine keeps sent packets for retransmission.
const RETRANSMISSION_TIMEOUT: Duration = Duration::from_millis(1_500);
