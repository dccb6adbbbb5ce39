//! A WebRTC viewer: the Pion program of `tests/pion`, which says every fifth of a second what came.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use headwater_tests::pion;
use headwater_tests::process::Process;
use serde::Deserialize;

/// A viewer. Dropped = it vanishes without a word.
#[derive(Debug)]
pub(crate) struct Whep {
    process: Process,
    mark: usize,
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
    picture_pause_ms: f64,
    missing: u64,
    late: u64,
}

/// What came of the pictures although packets were lost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Losses {
    /// Packets that have not come, while later ones have.
    pub(crate) missing: u64,
    /// Packets that came after later ones: they were asked for again.
    pub(crate) late: u64,
    /// The longest time between two whole pictures, in their order, since the mark.
    pub(crate) pause: Duration,
}

impl Whep {
    /// Watches `live/ID` at a web server, from an address of ours. To be called on a thread that outlives it.
    ///
    /// # Errors
    /// If the program is not built.
    pub(crate) fn start(server: SocketAddr, id: &str, from: IpAddr) -> anyhow::Result<Self> {
        let program = pion::program()?.context("the Pion viewer is not built")?;
        let mut command = Command::new(program);
        command.args(["-url", &format!("http://{server}/live/whep/{id}"), "-bind", &from.to_string()]);
        command.args(["-seconds", "3600", "-progress", "100ms", "-delete=false"]);
        Ok(Self { process: Process::start_tied(&command)?, mark: 0 })
    }

    /// Waits for the first picture; milliseconds from the POST to the first packet.
    pub(crate) fn wait_playing(&self) -> anyhow::Result<f64> {
        let line = self.process.line("\"event\":\"playing\"")?;
        let line: Line = serde_json::from_str(&line)?;
        line.report.get("first_packet_ms").and_then(serde_json::Value::as_f64).context("no time")
    }

    /// Pauses are counted from now on.
    pub(crate) fn mark(&mut self) {
        self.mark = self.process.line_count();
    }

    /// Pictures so far, and the longest pause between two packets of video since the mark.
    ///
    /// # Errors
    /// If the session is over.
    pub(crate) fn progress(&self) -> anyhow::Result<(u64, Duration)> {
        let said = self.said()?;
        let pause_ms = said.iter().map(|p| p.pause_ms).fold(0.0, f64::max);
        Ok((said.last().map_or(0, |p| p.frames), Duration::from_secs_f64(pause_ms / 1_000.0)))
    }

    /// What was lost so far, and what that did.
    ///
    /// # Errors
    /// As [`Whep::progress`].
    pub(crate) fn losses(&self) -> anyhow::Result<Losses> {
        let said = self.said()?;
        let pause_ms = said.iter().map(|p| p.picture_pause_ms).fold(0.0, f64::max);
        let (missing, late) = said.last().map_or((0, 0), |p| (p.missing, p.late));
        Ok(Losses { missing, late, pause: Duration::from_secs_f64(pause_ms / 1_000.0) })
    }

    fn said(&self) -> anyhow::Result<Vec<Progress>> {
        ensure!(self.process.is_running(), "the viewer has ended: {:?}", self.process.lines().last());
        let mut said = Vec::new();
        for line in self.process.lines_from(self.mark) {
            let line: Line = serde_json::from_str(&line).with_context(|| line.clone())?;
            if line.event == "progress" {
                said.push(serde_json::from_value(line.report)?);
            }
        }
        Ok(said)
    }

    /// True until its session is over.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_running()
    }
}
