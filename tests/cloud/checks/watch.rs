//! What checks share: who watches, and for how long there was nothing to see.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::engine::{status, wait_status};
use headwater_tests::wait;

use super::Stage;
use crate::node::{Node, Role};
use crate::viewers::{Publisher, Rtmp, Whep};

impl Stage<'_> {
    /// A publisher of `live/ID` through the balancer, and the index of the node it came to.
    pub(super) fn publish(&self, id: &str) -> anyhow::Result<(Publisher, usize)> {
        let publisher = Publisher::start(&self.scene.publish_url(&format!("live/{id}")))?;
        let at = self.wait_owner(id, None)?;
        Ok((publisher, at))
    }

    /// The origin that holds `live/ID`, other than `not`.
    pub(super) fn wait_owner(&self, id: &str, not: Option<usize>) -> anyhow::Result<usize> {
        let origins = self.scene.all(Role::Origin);
        wait::until(&format!("{id} to be published"), || {
            origins.iter().copied().find(|at| Some(*at) != not && owns(&self.scene.nodes[*at], id))
        })
    }

    /// WebRTC viewers at each of these nodes, playing.
    pub(super) fn whep(&self, nodes: &[usize], id: &str) -> anyhow::Result<Vec<(String, Whep)>> {
        let start = |at: &usize| {
            let node = &self.scene.nodes[*at];
            Ok((node.name.clone(), Whep::start(node.http(), id, self.scene.gateway())?))
        };
        let viewers = nodes.iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
        for (name, viewer) in &viewers {
            viewer.wait_playing().with_context(|| format!("WebRTC from {name}"))?;
        }
        Ok(viewers)
    }

    /// RTMP players at each of these nodes, playing.
    pub(super) fn rtmp(&self, nodes: &[usize], id: &str) -> anyhow::Result<Vec<(String, Rtmp)>> {
        let start = |at: &usize| {
            let node = &self.scene.nodes[*at];
            Ok((node.name.clone(), Rtmp::start(&format!("rtmp://{}/live/{id}", node.rtmp()))?))
        };
        let players = nodes.iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
        for (name, player) in &players {
            wait::until(&format!("RTMP from {name}"), || player.progress().ok().filter(|(n, _)| *n > 20))?;
        }
        Ok(players)
    }

    /// The edges there are from the start.
    pub(super) fn edges(&self) -> Vec<usize> {
        self.scene.all(Role::Edge).into_iter().filter(|at| self.scene.nodes[*at].name.starts_with("edge")).collect()
    }
}

/// True if the stream is published at this node, not only relayed.
pub(super) fn owns(node: &Node, id: &str) -> bool {
    // A node that only relays says so in its protocol.
    let status = status(node.http(), &format!("live/{id}"));
    matches!(status, Ok(Some(s)) if s.video.is_some() && s.protocol == "rtmp")
}

/// Waits until a node shows the stream.
pub(super) fn wait_shown(node: &Node, id: &str) -> anyhow::Result<()> {
    wait_status(node.http(), &format!("live/{id}"), "pictures", |s| s.video.is_some()).map(drop)
}

/// Waits until each of these has got `more` pictures since now; then gives the longest pause of each since its mark.
pub(super) fn whep_pauses(viewers: &[(String, Whep)], more: u64) -> anyhow::Result<Vec<Duration>> {
    each(viewers, more, Whep::progress)
}

/// The same for RTMP players.
pub(super) fn rtmp_pauses(players: &[(String, Rtmp)], more: u64) -> anyhow::Result<Vec<Duration>> {
    each(players, more, Rtmp::progress)
}

fn each<V>(
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
        let pause = wait::until(&format!("{more} more pictures at {name}"), || match progress(viewer) {
            Ok((frames, pause)) => (frames >= target).then_some(Ok(pause)),
            Err(e) => Some(Err(e)),
        })?;
        pauses.push(pause.with_context(|| name.clone())?);
    }
    Ok(pauses)
}

/// Lets time pass, and asks now and then whether all is still well.
pub(super) fn hold(time: Duration, mut look: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        look()?;
        std::thread::park_timeout(Duration::from_millis(200));
    }
    Ok(())
}

/// The longest of these in seconds, if it is below the limit.
pub(super) fn below(what: &str, pauses: &[Duration], limit: Duration) -> anyhow::Result<String> {
    let list: Vec<_> = pauses.iter().map(|p| format!("{:.2}", p.as_secs_f64())).collect();
    let text = format!("{what} {} s", list.join(", "));
    ensure!(pauses.iter().all(|p| *p < limit), "{text}: not below {} s", limit.as_secs_f64());
    Ok(text)
}
