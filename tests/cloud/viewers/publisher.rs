//! ffmpeg as a publisher that reconnects at once after a lost connection, like
//! OBS and hardware encoders.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use headwater_tests::process::Process;
use headwater_tests::publish::{Source, ffmpeg_command};

/// A publisher. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    starts: AtomicU32,
    process: Mutex<Option<Arc<Process>>>,
}

impl Publisher {
    /// Publishes to `url` until dropped.
    ///
    /// # Errors
    /// If ffmpeg is not installed.
    pub(crate) fn start(url: &str) -> anyhow::Result<Self> {
        let mut command = ffmpeg_command().context("ffmpeg is not installed")?;
        command.args(Source::default().ffmpeg_arguments()).args([
            "-flvflags",
            "no_duration_filesize",
            "-f",
            "flv",
            url,
        ]);
        let shared = Arc::new(Shared::default());
        let thread_shared = Arc::clone(&shared);
        // ffmpeg is tied to the thread that starts it, so that thread must not exit.
        std::thread::spawn(move || {
            while !thread_shared.stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                let Ok(process) = Process::start_tied_to_thread(&command).map(Arc::new) else { return };
                thread_shared.starts.fetch_add(1, Ordering::Relaxed);
                *thread_shared.lock() = Some(Arc::clone(&process));
                loop {
                    let ended = process.wait_exit(STOP_POLL_INTERVAL).is_ok();
                    if ended || thread_shared.stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                drop(thread_shared.lock().take());
                // A refused publisher retries, but at a limited rate.
                std::thread::park_timeout(RESTART_INTERVAL.saturating_sub(started.elapsed()));
            }
        });
        Ok(Self { shared })
    }

    /// Number of times that ffmpeg was started.
    pub(crate) fn start_count(&self) -> u32 {
        self.shared.starts.load(Ordering::Relaxed)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(process) = self.shared.lock().take() {
            process.signal(nix::sys::signal::Signal::SIGKILL);
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const STOP_POLL_INTERVAL: Duration = Duration::from_millis(500);
const RESTART_INTERVAL: Duration = Duration::from_millis(400);
