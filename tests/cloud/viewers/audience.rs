//! Viewers who lose their node and join again: half over WebRTC, half over LL-HLS, all through one
//! load balancer and with the policy of the player page.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use headwater_tests::process::Process;
use headwater_tests::{pion, wait};
use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::runtime::Handle;

use super::low_latency::LowLatencyViewers;

/// Viewers of one stream. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct Audience {
    webrtc: Process,
    low_latency: LowLatencyViewers,
}

#[derive(Deserialize)]
struct Line {
    event: String,
    report: Option<Report>,
}

#[derive(Deserialize)]
struct Report {
    playing: usize,
    sessions: u32,
    pauses_ms: Vec<u64>,
}

/// Pauses of an audience since the last reset.
#[derive(Debug, Clone)]
pub(crate) struct Pauses {
    /// Viewers who play now.
    pub(crate) playing: usize,
    /// WebRTC sessions that they have opened so far.
    pub(crate) sessions: u32,
    /// The longest pause of each viewer, shortest first.
    pub(crate) longest: Vec<Duration>,
}

impl Audience {
    /// Starts `count` viewers of `live/ID`, from the local address `from`, and waits until all of
    /// them play. Call it on a thread that outlives them.
    ///
    /// # Errors
    /// If the Pion viewer is not built, or not all of them play in time.
    pub(crate) fn start(
        runtime: &Handle,
        server: SocketAddr,
        from: IpAddr,
        id: &str,
        count: u32,
    ) -> anyhow::Result<Self> {
        let program = pion::viewer_path()?.context("the Pion viewer is not built")?;
        let mut command = Command::new(program);
        command.args(["-url", &format!("http://{server}/live/whep/{id}"), "-bind", &from.to_string()]);
        let webrtc_count = Self::webrtc_count(count);
        command.args(["-rejoiners", &webrtc_count.to_string()]);
        let webrtc = Process::start_tied_to_thread(&command)?;
        let low_latency = LowLatencyViewers::start(runtime, server, id, count - webrtc_count);
        let audience = Self { webrtc, low_latency };
        wait::until(&format!("{count} viewers to play"), || {
            audience.pauses().ok().filter(|pauses| pauses.playing == count as usize)
        })?;
        audience.reset_pauses()?;
        Ok(audience)
    }

    /// How many of `count` viewers play over WebRTC.
    pub(crate) fn webrtc_count(count: u32) -> u32 {
        count / 2
    }

    /// Restarts the measurement of the longest pauses.
    ///
    /// # Errors
    /// If the viewers have ended.
    pub(crate) fn reset_pauses(&self) -> anyhow::Result<()> {
        let before = self.webrtc.line_count();
        self.webrtc.signal(Signal::SIGUSR1);
        wait::until("the viewers to reset their pauses", || {
            self.webrtc.lines_from(before).iter().any(|line| line.contains("\"event\":\"reset\"")).then_some(())
        })?;
        self.low_latency.reset_pauses();
        Ok(())
    }

    /// The pauses since the last reset, including those that last.
    ///
    /// # Errors
    /// If the viewers have ended.
    pub(crate) fn pauses(&self) -> anyhow::Result<Pauses> {
        ensure!(self.webrtc.is_running(), "the viewers have ended: {:?}", self.webrtc.lines().last());
        let recent = self.webrtc.lines_from(self.webrtc.line_count().saturating_sub(RECENT_LINES));
        let reports = recent.iter().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let report = reports.filter(|line| line.event == "rejoin").filter_map(|line| line.report).next_back();
        let report = report.context("no report of the WebRTC viewers")?;
        let low_latency = self.low_latency.pauses();
        let playing = report.playing + low_latency.iter().filter(|(_, plays)| *plays).count();
        let webrtc = report.pauses_ms.into_iter().map(Duration::from_millis);
        let mut longest: Vec<_> = webrtc.chain(low_latency.into_iter().map(|(pause, _)| pause)).collect();
        longest.sort_unstable();
        Ok(Pauses { playing, sessions: report.sessions, longest })
    }
}

impl Pauses {
    /// The number of viewers whose pauses are all below `limit`.
    pub(crate) fn count_below(&self, limit: Duration) -> usize {
        self.longest.iter().filter(|pause| **pause < limit).count()
    }

    /// Half of the viewers have no longer pause.
    pub(crate) fn median(&self) -> Duration {
        self.longest.get(self.longest.len() / 2).copied().unwrap_or_default()
    }

    /// The longest pause of all.
    pub(crate) fn max(&self) -> Duration {
        self.longest.last().copied().unwrap_or_default()
    }
}

/// More lines than are printed between two reports.
const RECENT_LINES: usize = 5;
