//! The Pion viewer (`tests/pion`): an independent WebRTC stack that plays over WHEP.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use crate::engine;
use crate::process::Process;
use crate::temp::TempDir;
use crate::tools;

/// What the viewer received of one track.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TrackReport {
    /// MIME type, empty if nothing was received.
    pub codec: String,
    /// Distinct RTP packets received.
    pub packets: u64,
    /// Sequence numbers between the first and the last that were never received.
    pub lost: u64,
    /// Packets discarded on purpose when first received.
    pub dropped: u64,
    /// Packets received more than once.
    pub duplicates: u64,
    /// Video frames or audio packets.
    pub frames: u64,
    /// RTCP sender reports received.
    pub sender_reports: u64,
    /// How much later video is than audio according to the sender reports, in milliseconds.
    pub lip_sync_ms: Option<i64>,
    /// True if RTCP BYE was received.
    pub goodbye: bool,
}

/// Final report of the viewer. Times are measured from sending the offer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Status of the response to the POST.
    pub status: u16,
    /// Body of the response to a refused POST.
    pub body: String,
    /// Time to the SDP answer.
    pub answer_ms: f64,
    /// Time to the first RTP packet.
    pub first_packet_ms: f64,
    /// SRTP protection profile, as Pion names it.
    pub srtp: String,
    /// Remote address of the selected candidate pair.
    pub remote: String,
    /// Video track.
    pub video: TrackReport,
    /// Audio track.
    pub audio: TrackReport,
    /// Picture loss indications sent.
    pub pli_sent: u64,
    /// Invalid datagrams sent, by kind.
    pub attacks: std::collections::BTreeMap<String, u64>,
    /// True if the server closed the session.
    pub closed_by_server: bool,
    /// Status of the response to the DELETE.
    pub delete_status: u16,
    /// Status of the response to a second DELETE, after the end of the session.
    pub repeated_delete_status: u16,
    /// State of the peer connection before it was closed.
    pub connection_state: String,
}

/// Report of a group of viewers that moves from one node to another.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct MigrationReport {
    /// Number of viewers.
    pub peers: u64,
    /// Viewers that still received video at the end.
    pub playing: u64,
    /// Viewers that moved.
    pub moved: u64,
    /// Viewers without video, including those that never started.
    pub lost: u64,
    /// Longest time between two video packets, in milliseconds.
    pub max_gap_ms: f64,
}

/// A running viewer. Killed on drop.
#[derive(Debug)]
pub struct Viewer {
    process: Process,
    folder: TempDir,
}

#[derive(Deserialize)]
struct OutputLine {
    event: String,
    report: serde_json::Value,
}

impl Viewer {
    /// Starts to play `url`. Returns `None` if the program is not built; the skip is printed.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(url: &str, arguments: &[&str]) -> anyhow::Result<Option<Self>> {
        let Some(program) = viewer_path()? else { return Ok(None) };
        let folder = TempDir::new()?;
        let process =
            Process::start(Command::new(program).args(["-url", url, "-out"]).arg(folder.path()).args(arguments))?;
        Ok(Some(Self { process, folder }))
    }

    /// Waits for the first video frame.
    ///
    /// # Errors
    /// If the viewer ends before.
    pub fn wait_playing(&self) -> anyhow::Result<()> {
        self.process.wait_line("\"event\":\"playing\"").map(drop)
    }

    /// Waits until all invalid datagrams are sent.
    ///
    /// # Errors
    /// If the viewer ends before.
    pub fn wait_attacks_sent(&self) -> anyhow::Result<()> {
        self.process.wait_line("\"event\":\"attacked\"").map(drop)
    }

    /// Waits for the end of the viewer and returns its report.
    ///
    /// # Errors
    /// If it fails or prints no report.
    pub fn wait_report(&self) -> anyhow::Result<Report> {
        self.wait_end()
    }

    /// Waits for the end of a group of viewers (`-movers`) and returns its report.
    ///
    /// # Errors
    /// If it fails or prints no report.
    pub fn wait_migration_report(&self) -> anyhow::Result<MigrationReport> {
        self.wait_end()
    }

    fn wait_end<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        let line = self.process.wait_line("\"event\":\"end\"")?;
        let exit = self.process.wait_exit(Duration::from_secs(10))?;
        anyhow::ensure!(exit.success(), "pion-whep: {exit}");
        let line: OutputLine = serde_json::from_str(&line)?;
        anyhow::ensure!(line.event == "end", "not the event `end`: {}", line.event);
        serde_json::from_value(line.report).context("a report of another shape")
    }

    /// Kills the viewer, so that it sends neither BYE nor DELETE.
    pub fn kill(&self) {
        self.process.signal(nix::sys::signal::Signal::SIGKILL);
    }

    /// Path of the received video, H.264 Annex B.
    pub fn video_path(&self) -> PathBuf {
        self.folder.path().join("video.h264")
    }

    /// Path of the received audio, Opus in Ogg.
    pub fn audio_path(&self) -> PathBuf {
        self.folder.path().join("audio.ogg")
    }
}

/// Path of the viewer, which `./headwater test` builds into the target folder. Returns `None` if it
/// is not built; the skip is printed.
///
/// # Errors
/// If the engine is not built either.
pub fn viewer_path() -> anyhow::Result<Option<PathBuf>> {
    let engine = engine::program_path("headwater-engine")?;
    let built = engine.parent().and_then(|p| p.parent()).context("a target folder")?.join("pion-whep");
    if built.is_file() {
        return Ok(Some(built));
    }
    tools::skip_missing(&format!("{} is not built (`go build -o` it from tests/pion)", built.display()));
    Ok(None)
}
