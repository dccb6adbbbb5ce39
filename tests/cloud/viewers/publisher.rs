//! ffmpeg as a publisher that comes back at once when its connection is lost, as OBS and hardware encoders do.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use headwater_tests::process::Process;
use headwater_tests::publish::{Source, ffmpeg_command};

/// A publisher. Dropped = it stops.
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
    /// If ffmpeg is missing.
    pub(crate) fn start(url: &str) -> anyhow::Result<Self> {
        let mut command = ffmpeg_command().context("ffmpeg is missing")?;
        command.args(Source::default().arguments()).args(["-flvflags", "no_duration_filesize", "-f", "flv", url]);
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        // The thread that starts ffmpeg stays, since ffmpeg is tied to it.
        std::thread::spawn(move || {
            while !own.stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let Ok(process) = Process::start_tied(&command).map(Arc::new) else { return };
                own.starts.fetch_add(1, Ordering::Relaxed);
                *own.lock() = Some(Arc::clone(&process));
                loop {
                    let ended = process.exit(STEP).is_ok();
                    if ended || own.stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                drop(own.lock().take());
                // One that is refused tries again, but not without end in a second.
                std::thread::park_timeout(RETRY.saturating_sub(begun.elapsed()));
            }
        });
        Ok(Self { shared })
    }

    /// How often it began.
    pub(crate) fn starts(&self) -> u32 {
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

const STEP: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(400);
