//! Steps that checks share: start publishers and viewers, wait for states, measure pauses.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::engine::{status, wait_status};
use headwater_tests::wait;

use super::CheckContext;
use crate::node::{Node, Role};
use crate::viewers::{Publisher, RtmpPlayer, WhepViewer};

impl CheckContext<'_> {
    /// Publishes `live/ID` through the load balancer; returns the publisher and the
    /// index of its origin.
    pub(super) fn publish(&self, id: &str) -> anyhow::Result<(Publisher, usize)> {
        let publisher = Publisher::start(&self.cluster.publish_url(&format!("live/{id}")))?;
        let at = self.wait_owner(id, None)?;
        Ok((publisher, at))
    }

    /// Waits until an origin other than `not` owns `live/ID`, and returns its index.
    pub(super) fn wait_owner(&self, id: &str, not: Option<usize>) -> anyhow::Result<usize> {
        let origins = self.cluster.nodes_with_role(Role::Origin);
        wait::until(&format!("{id} to be published"), || {
            origins.iter().copied().find(|at| Some(*at) != not && owns(&self.cluster.nodes[*at], id))
        })
    }

    /// Starts a WebRTC viewer on each of these nodes and waits until it plays.
    pub(super) fn start_whep_viewers(&self, nodes: &[usize], id: &str) -> anyhow::Result<Vec<(String, WhepViewer)>> {
        let start = |at: &usize| {
            let node = &self.cluster.nodes[*at];
            Ok((node.name.clone(), WhepViewer::start(node.http(), id, self.cluster.gateway())?))
        };
        let viewers = nodes.iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
        for (name, viewer) in &viewers {
            viewer.wait_playing().with_context(|| format!("WebRTC from {name}"))?;
        }
        Ok(viewers)
    }

    /// Starts an RTMP player on each of these nodes and waits until it plays.
    pub(super) fn start_rtmp_players(&self, nodes: &[usize], id: &str) -> anyhow::Result<Vec<(String, RtmpPlayer)>> {
        let start = |at: &usize| {
            let node = &self.cluster.nodes[*at];
            Ok((node.name.clone(), RtmpPlayer::start(&format!("rtmp://{}/live/{id}", node.rtmp()))?))
        };
        let players = nodes.iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
        for (name, player) in &players {
            wait::until(&format!("RTMP from {name}"), || player.progress().ok().filter(|(n, _)| *n > 20))?;
        }
        Ok(players)
    }

    /// The edges that belong to the initial cluster.
    pub(super) fn edges(&self) -> Vec<usize> {
        self.cluster
            .nodes_with_role(Role::Edge)
            .into_iter()
            .filter(|at| self.cluster.nodes[*at].name.starts_with("edge"))
            .collect()
    }
}

/// True if the stream is published on this node, not only relayed.
pub(super) fn owns(node: &Node, id: &str) -> bool {
    // A node that only relays the stream reports another protocol.
    let status = status(node.http(), &format!("live/{id}"));
    matches!(status, Ok(Some(s)) if s.video.is_some() && s.protocol == "rtmp")
}

/// Waits until the stream is live on a node.
pub(super) fn wait_live(node: &Node, id: &str) -> anyhow::Result<()> {
    wait_status(node.http(), &format!("live/{id}"), "video", |s| s.video.is_some()).map(drop)
}

/// Waits until each viewer has received `more` frames, then returns the longest pause of each since
/// its last reset.
pub(super) fn whep_pauses(viewers: &[(String, WhepViewer)], more: u64) -> anyhow::Result<Vec<Duration>> {
    wait_for_frames(viewers, more, WhepViewer::progress)
}

/// Like [`whep_pauses`], for RTMP players.
pub(super) fn rtmp_pauses(players: &[(String, RtmpPlayer)], more: u64) -> anyhow::Result<Vec<Duration>> {
    wait_for_frames(players, more, RtmpPlayer::progress)
}

fn wait_for_frames<V>(
    viewers: &[(String, V)],
    more: u64,
    progress: impl Fn(&V) -> anyhow::Result<(u64, Duration)>,
) -> anyhow::Result<Vec<Duration>> {
    let mut targets = Vec::new();
    for (name, viewer) in viewers {
        targets.push(progress(viewer).with_context(|| name.clone())?.0 + more);
    }
    let mut pauses = Vec::new();
    for ((name, viewer), target) in viewers.iter().zip(targets) {
        let pause = wait::until(&format!("{more} more frames from {name}"), || match progress(viewer) {
            Ok((frames, pause)) => (frames >= target).then_some(Ok(pause)),
            Err(e) => Some(Err(e)),
        })?;
        pauses.push(pause.with_context(|| name.clone())?);
    }
    Ok(pauses)
}

/// Repeats `check` for this duration; returns its first error.
pub(super) fn check_repeatedly(time: Duration, mut check: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < time {
        check()?;
        std::thread::park_timeout(Duration::from_millis(200));
    }
    Ok(())
}

/// Formats the pauses, in seconds; fails if one is not below the limit.
pub(super) fn ensure_below(what: &str, pauses: &[Duration], limit: Duration) -> anyhow::Result<String> {
    let list: Vec<_> = pauses.iter().map(|p| format!("{:.2}", p.as_secs_f64())).collect();
    let text = format!("{what} {} s", list.join(", "));
    ensure!(pauses.iter().all(|p| *p < limit), "{text}: not below {} s", limit.as_secs_f64());
    Ok(text)
}
