//! A WebRTC viewer: the Pion program of `tests/pion`, which prints its progress ten times a second.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use headwater_tests::pion;
use headwater_tests::process::Process;
use serde::Deserialize;

/// A viewer. Dropping it kills the process without ending the session.
#[derive(Debug)]
pub(crate) struct WhepViewer {
    process: Process,
    first_line: usize,
}

#[derive(Deserialize)]
struct Line {
    event: String,
    report: serde_json::Value,
}

#[derive(Deserialize)]
struct Progress {
    frames: u64,
    pause_ms: f64,
    frame_pause_ms: f64,
    missing: u64,
    late: u64,
}

/// Effects of packet loss on one viewer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LossStats {
    /// Video packets not received although later ones were.
    pub(crate) missing: u64,
    /// Video packets received after later ones: retransmissions.
    pub(crate) late: u64,
    /// Longest time between two complete frames, in order, since the last reset.
    pub(crate) pause: Duration,
}

impl WhepViewer {
    /// Plays `live/ID` from a node, from the local address `from`. Call it on a thread that
    /// outlives the viewer.
    ///
    /// # Errors
    /// If the program is not built.
    pub(crate) fn start(server: SocketAddr, id: &str, from: IpAddr) -> anyhow::Result<Self> {
        let program = pion::viewer_path()?.context("the Pion viewer is not built")?;
        let mut command = Command::new(program);
        command.args(["-url", &format!("http://{server}/live/whep/{id}"), "-bind", &from.to_string()]);
        command.args(["-seconds", "3600", "-progress", "100ms", "-delete=false"]);
        Ok(Self { process: Process::start_tied_to_thread(&command)?, first_line: 0 })
    }

    /// Waits for the first frame; returns the time from the POST to the
    /// first packet, in milliseconds.
    pub(crate) fn wait_playing(&self) -> anyhow::Result<f64> {
        let line = self.process.wait_line("\"event\":\"playing\"")?;
        let line: Line = serde_json::from_str(&line)?;
        line.report
            .get("first_packet_ms")
            .and_then(serde_json::Value::as_f64)
            .context("the playing event has no first_packet_ms")
    }

    /// Restarts the measurement of the longest pause.
    pub(crate) fn reset_pauses(&mut self) {
        self.first_line = self.process.line_count();
    }

    /// Number of frames so far, and the longest pause between two video packets
    /// since the last reset.
    ///
    /// # Errors
    /// If the session has ended.
    pub(crate) fn progress(&self) -> anyhow::Result<(u64, Duration)> {
        let reports = self.progress_reports()?;
        let pause_ms = reports.iter().map(|p| p.pause_ms).fold(0.0, f64::max);
        Ok((reports.last().map_or(0, |p| p.frames), Duration::from_secs_f64(pause_ms / 1_000.0)))
    }

    /// Packet loss so far, and its effect.
    ///
    /// # Errors
    /// As [`WhepViewer::progress`].
    pub(crate) fn losses(&self) -> anyhow::Result<LossStats> {
        let reports = self.progress_reports()?;
        let pause_ms = reports.iter().map(|p| p.frame_pause_ms).fold(0.0, f64::max);
        let (missing, late) = reports.last().map_or((0, 0), |p| (p.missing, p.late));
        Ok(LossStats { missing, late, pause: Duration::from_secs_f64(pause_ms / 1_000.0) })
    }

    fn progress_reports(&self) -> anyhow::Result<Vec<Progress>> {
        ensure!(self.process.is_running(), "the viewer has ended: {:?}", self.process.lines().last());
        let mut reports = Vec::new();
        for line in self.process.lines_from(self.first_line) {
            let line: Line = serde_json::from_str(&line).with_context(|| line.clone())?;
            if line.event == "progress" {
                reports.push(serde_json::from_value(line.report)?);
            }
        }
        Ok(reports)
    }

    /// True until the session has ended.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_running()
    }
}
