//! An RTMP player: ffmpeg, which prints a line per video frame and audio packet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::process::Process;
use headwater_tests::publish::ffmpeg_command;

/// A player. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct RtmpPlayer {
    process: Arc<Process>,
    pauses: Arc<Mutex<PauseTracker>>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct PauseTracker {
    count: usize,
    last: Instant,
    longest: Duration,
}

impl RtmpPlayer {
    /// Plays a URL. Call it on a thread that outlives the player.
    ///
    /// # Errors
    /// If ffmpeg is not installed.
    pub(crate) fn start(url: &str) -> anyhow::Result<Self> {
        let mut command = ffmpeg_command().context("ffmpeg is not installed")?;
        command.args(["-i", url, "-c", "copy", "-f", "framecrc", "-flush_packets", "1", "-"]);
        let process = Arc::new(Process::start_tied_to_thread(&command)?);
        let pauses = Arc::new(Mutex::new(PauseTracker { count: 0, last: Instant::now(), longest: Duration::ZERO }));
        let stop = Arc::new(AtomicBool::new(false));
        let (watched_process, watched_pauses, stop_requested) =
            (Arc::clone(&process), Arc::clone(&pauses), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop_requested.load(Ordering::Relaxed) {
                watched_pauses.lock().unwrap_or_else(PoisonError::into_inner).update(watched_process.line_count());
                std::thread::park_timeout(POLL_INTERVAL);
            }
        });
        Ok(Self { process, pauses, stop })
    }

    /// Restarts the measurement of the longest pause.
    pub(crate) fn reset_pauses(&self) {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).longest = Duration::ZERO;
    }

    /// Number of lines so far, and the longest pause between two of them since the last reset.
    ///
    /// # Errors
    /// If the player has ended.
    pub(crate) fn progress(&self) -> anyhow::Result<(u64, Duration)> {
        ensure!(self.process.is_running(), "the player has ended: {:?}", self.process.lines().last());
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((pauses.count as u64, pauses.longest.max(pauses.last.elapsed())))
    }
}

impl Drop for RtmpPlayer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.process.signal(nix::sys::signal::Signal::SIGKILL);
    }
}

impl PauseTracker {
    fn update(&mut self, count: usize) {
        // The first lines are a header, and playback starts with a burst of buffered frames.
        if count != self.count {
            if self.count > 0 {
                self.longest = self.longest.max(self.last.elapsed());
            }
            (self.count, self.last) = (count, Instant::now());
        }
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(10);
