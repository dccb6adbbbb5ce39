//! Polling for a state that has no event to wait for. Prefer waiting for an event where there is
//! one (`process::Process::wait_line`).

use std::time::{Duration, Instant};

/// How long a state may take on a busy machine before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two polls: short compared to everything that tests wait for.
const PAUSE: Duration = Duration::from_millis(25);

/// Polls until there is a value. `what` completes the sentence "timed out waiting for …".
///
/// # Errors
/// If there is none within [`WAIT_TIMEOUT`].
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    until_within(PATIENCE, what, ask)
}

/// Like [`until`], with another time-out.
///
/// # Errors
/// If there is no value within `timeout`.
pub fn until_within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        anyhow::ensure!(start.elapsed() < patience, "timed out after {patience:?} waiting for {what}");
        std::thread::park_timeout(PAUSE);
    }
}
