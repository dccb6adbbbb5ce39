//! A network that loses packets now and then, without a word to anyone.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use headwater_tests::wait;

use super::watch::{below, hold, rtmp_pauses, whep_pauses};
use super::{Extent, Stage};
use crate::viewers::{Hls, Kind};

/// On the cable of one edge, to its viewers and to the origin alike: WebRTC viewers get again what they ask for (RFC 4585 §6.2.1), and
/// TCP sends again what everything else needs.
pub(super) fn packets(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (_publisher, _) = stage.publish("loss")?;
    let edges = stage.edges();
    let [lossy, other, ..] = edges[..] else { bail!("one edge only") };
    let node = &stage.scene.nodes[lossy];
    let hls = Hls::start(&stage.scene.runtime, Kind::LowLatency, &[node.http()], "loss", 1);
    let mut whep = stage.whep(&[[lossy; VIEWERS].as_slice(), &[other]].concat(), "loss")?;
    let rtmp = stage.rtmp(&[lossy], "loss")?;
    wait::until("LL-HLS from the edge", || (hls.seen().media >= 2).then_some(()))?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    rtmp.iter().for_each(|(_, player)| player.mark());
    hls.mark();
    let (media, lines) = (hls.seen().media, node.daemon()?.line_count());

    node.host().lose(PERCENT)?;
    let time = Duration::from_secs(if stage.options.extent == Extent::Short { 2 } else { 30 });
    let (whep, whole) = whep.split_at(VIEWERS);
    hold(time, || whep.iter().try_for_each(|(_, viewer)| viewer.losses().map(drop)))?;
    node.host().heal()?;

    let losses = || whep.iter().map(|(_, viewer)| viewer.losses()).collect::<anyhow::Result<Vec<_>>>();
    let nothing_missing = || losses().ok().filter(|all| all.iter().all(|l| l.missing == 0)).map(drop);
    wait::until_within(KEPT, "packets that were asked for again", nothing_missing)
        .with_context(|| format!("{:?}", losses()))?;
    whep_pauses(whep, 10).context("WebRTC after the losses")?;
    let losses = losses()?;
    let late: u64 = losses.iter().map(|l| l.late).sum();
    ensure!(late > 0, "no WebRTC viewer has lost a packet: nothing is proved");
    let pauses = below("WebRTC", &losses.iter().map(|l| l.pause).collect::<Vec<_>>(), PAUSE)?;
    let rtmp = below("RTMP", &rtmp_pauses(&rtmp, 10)?, PAUSE)?;
    let seen = hls.seen();
    ensure!(seen.refused() == 0 && seen.broken == 0 && seen.media > media, "LL-HLS: {seen:?}");
    let low = below("LL-HLS", &[seen.pause], PAUSE_LL_HLS)?;
    let others = below("elsewhere", &whep_pauses(whole, 1)?, PAUSE)?;
    let lost_sources =
        node.daemon()?.lines_from(lines).iter().filter(|line| line.contains("relay source lost")).count();
    ensure!(lost_sources == 0, "the edge gave up its link to the origin {lost_sources} times");
    Ok(format!(
        "{PERCENT} % each way for {} s: {late} packets of {VIEWERS} WebRTC viewers came when asked for again, 0 never; \
         pauses between pictures: {pauses}; {rtmp}; {low}; {others}; the relay kept its link",
        time.as_secs()
    ))
}

const VIEWERS: usize = 3;
/// Of a bad wireless network.
const PERCENT: u8 = 3;
/// Of a viewer that asks every tenth of a second and may have to ask again.
const PAUSE: Duration = Duration::from_secs(1);
/// Each of a player's requests and answers may be lost, and TCP waits twice as long each time (RFC 6298 §5.5).
const PAUSE_LL_HLS: Duration = Duration::from_secs(2);
/// As long as the engine keeps what it sent, at least: what has not come again by then never will.
const KEPT: Duration = Duration::from_millis(1_500);
