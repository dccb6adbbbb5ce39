//! Polling for a state that has no event to wait for. Prefer waiting for an event where there is
//! one (`process::Process::wait_line`).

use std::time::{Duration, Instant};

/// How long a state may take on a busy machine before the test fails.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two polls: short compared to everything that tests wait for.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Polls until there is a value. `what` completes the sentence "timed out waiting for …".
///
/// # Errors
/// If there is none within [`WAIT_TIMEOUT`].
pub fn until<T>(what: &str, poll: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    until_within(WAIT_TIMEOUT, what, poll)
}

/// Like [`until`], with another time-out.
///
/// # Errors
/// If there is no value within `timeout`.
pub fn until_within<T>(timeout: Duration, what: &str, mut poll: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = poll() {
            return Ok(value);
        }
        anyhow::ensure!(start.elapsed() < timeout, "timed out after {timeout:?} waiting for {what}");
        std::thread::park_timeout(POLL_INTERVAL);
    }
}
