//! The Pion viewer (`tests/pion`): a WebRTC stack that is not ours, watching over WHEP.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use crate::engine;
use crate::process::Process;
use crate::temp::Folder;
use crate::tools;

/// What came of one track.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Track {
    /// MIME type, empty if nothing came.
    pub codec: String,
    /// Different RTP packets that came.
    pub packets: u64,
    /// Numbers between the first and the last that never came.
    pub lost: u64,
    /// Packets that were thrown away on purpose at their first coming.
    pub dropped: u64,
    /// Packets that came more than once.
    pub again: u64,
    /// Pictures, or packets of sound.
    pub frames: u64,
    /// RTCP sender reports.
    pub sender_reports: u64,
    /// By how much pictures are later than sound, by the sender's reports.
    pub lip_sync_ms: Option<i64>,
    /// RTCP BYE has come.
    pub goodbye: bool,
}

/// What the viewer says at its end. Times count from sending the offer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Of the POST.
    pub status: u16,
    /// Of a refused POST.
    pub body: String,
    /// Milliseconds.
    pub answer_ms: f64,
    /// Milliseconds.
    pub first_packet_ms: f64,
    /// Profile, as Pion names it.
    pub srtp: String,
    /// The server's address in use.
    pub remote: String,
    /// Pictures.
    pub video: Track,
    /// Sound.
    pub audio: Track,
    /// Requests for a key frame.
    pub pli_sent: u64,
    /// Bad datagrams sent, by kind.
    pub attacks: std::collections::BTreeMap<String, u64>,
    /// The server has ended it.
    pub closed_by_server: bool,
    /// Answer of the DELETE.
    pub delete_status: u16,
    /// Answer of a DELETE after the session's end.
    pub delete_again: u16,
    /// Of the peer connection, before it was left.
    pub connection_state: String,
}

/// What a crowd says that was to move from its node to another one.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Move {
    /// How many there were.
    pub peers: u64,
    /// How many still had pictures at the end.
    pub playing: u64,
    /// How many moved.
    pub moved: u64,
    /// How many had no picture, or never began.
    pub lost: u64,
    /// The longest time between two packets of pictures, milliseconds.
    pub max_gap_ms: f64,
}

/// A running viewer. Dropped = killed.
#[derive(Debug)]
pub struct Viewer {
    process: Process,
    folder: Folder,
}

#[derive(Deserialize)]
struct Line {
    event: String,
    report: serde_json::Value,
}

impl Viewer {
    /// Starts to watch `url`. `None` if the program is not built (said aloud).
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(url: &str, arguments: &[&str]) -> anyhow::Result<Option<Self>> {
        let Some(program) = program()? else { return Ok(None) };
        let folder = Folder::new()?;
        let process =
            Process::start(Command::new(program).args(["-url", url, "-out"]).arg(folder.path()).args(arguments))?;
        Ok(Some(Self { process, folder }))
    }

    /// Waits until the first picture has come.
    ///
    /// # Errors
    /// If it ends without.
    pub fn wait_playing(&self) -> anyhow::Result<()> {
        self.process.line("\"event\":\"playing\"").map(drop)
    }

    /// Waits until all attacks are sent.
    ///
    /// # Errors
    /// If it ends before.
    pub fn wait_attacked(&self) -> anyhow::Result<()> {
        self.process.line("\"event\":\"attacked\"").map(drop)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it fails, or says nothing.
    pub fn report(&self) -> anyhow::Result<Report> {
        self.end()
    }

    /// The same for a crowd (`-crowd`).
    ///
    /// # Errors
    /// If it fails, or says nothing.
    pub fn moved(&self) -> anyhow::Result<Move> {
        self.end()
    }

    fn end<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        let line = self.process.line("\"event\":\"end\"")?;
        let exit = self.process.exit(Duration::from_secs(10))?;
        anyhow::ensure!(exit.success(), "pion-whep: {exit}");
        let line: Line = serde_json::from_str(&line)?;
        anyhow::ensure!(line.event == "end", "not the end: {}", line.event);
        serde_json::from_value(line.report).context("a report of another shape")
    }

    /// SIGKILL: it vanishes without a word.
    pub fn kill(&self) {
        self.process.signal(nix::sys::signal::Signal::SIGKILL);
    }

    /// The pictures it has written, H.264 Annex B.
    pub fn video(&self) -> PathBuf {
        self.folder.path().join("video.h264")
    }

    /// The sound it has written, Ogg with Opus.
    pub fn audio(&self) -> PathBuf {
        self.folder.path().join("audio.ogg")
    }
}

/// Where it is: built by `./headwater test` into the target folder. `None` if it is not (said aloud).
///
/// # Errors
/// If our own programs are not built either.
pub fn program() -> anyhow::Result<Option<PathBuf>> {
    let beside = engine::program("headwater-engine")?;
    let built = beside.parent().and_then(|p| p.parent()).context("a target folder")?.join("pion-whep");
    if built.is_file() {
        return Ok(Some(built));
    }
    tools::missing(&format!("{} is not built (`go build -o` it from tests/pion)", built.display()));
    Ok(None)
}
