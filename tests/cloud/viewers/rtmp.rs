//! An RTMP player: ffmpeg, which prints a line for every picture and every packet of sound.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::process::Process;
use headwater_tests::publish::ffmpeg_command;

/// A player. Dropped = killed.
#[derive(Debug)]
pub(crate) struct Rtmp {
    process: Arc<Process>,
    pauses: Arc<Mutex<Pauses>>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Pauses {
    count: usize,
    at: Instant,
    longest: Duration,
}

impl Rtmp {
    /// Plays an address. To be called on a thread that outlives it.
    ///
    /// # Errors
    /// If ffmpeg is missing.
    pub(crate) fn start(url: &str) -> anyhow::Result<Self> {
        let mut command = ffmpeg_command().context("ffmpeg is missing")?;
        command.args(["-i", url, "-c", "copy", "-f", "framecrc", "-flush_packets", "1", "-"]);
        let process = Arc::new(Process::start_tied(&command)?);
        let pauses = Arc::new(Mutex::new(Pauses { count: 0, at: Instant::now(), longest: Duration::ZERO }));
        let stop = Arc::new(AtomicBool::new(false));
        let (watched, noted, stopped) = (Arc::clone(&process), Arc::clone(&pauses), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                noted.lock().unwrap_or_else(PoisonError::into_inner).look(watched.line_count());
                std::thread::park_timeout(LOOK);
            }
        });
        Ok(Self { process, pauses, stop })
    }

    /// Pauses are counted from now on.
    pub(crate) fn mark(&self) {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).longest = Duration::ZERO;
    }

    /// Lines so far, and the longest time without one since the mark.
    ///
    /// # Errors
    /// If the player has ended.
    pub(crate) fn progress(&self) -> anyhow::Result<(u64, Duration)> {
        ensure!(self.process.is_running(), "the player has ended: {:?}", self.process.lines().last());
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((pauses.count as u64, pauses.longest.max(pauses.at.elapsed())))
    }
}

impl Drop for Rtmp {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.process.signal(nix::sys::signal::Signal::SIGKILL);
    }
}

impl Pauses {
    fn look(&mut self, count: usize) {
        // The first lines are the head of the listing, and a player begins with what was kept.
        if count != self.count {
            if self.count > 0 {
                self.longest = self.longest.max(self.at.elapsed());
            }
            (self.count, self.at) = (count, Instant::now());
        }
    }
}

const LOOK: Duration = Duration::from_millis(10);
