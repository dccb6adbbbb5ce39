//! Waiting for a state that can only be asked for. Whoever can be told waits for the event instead
//! (`process::Process::line`, `http::Client` on a blocking playlist).

use std::time::{Duration, Instant};

/// How long a state may take on a busy machine before the test has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two questions: short against everything that is waited for.
const PAUSE: Duration = Duration::from_millis(25);

/// Asks until there is an answer. `what` completes the sentence "timed out waiting for …".
///
/// # Errors
/// If there was none within [`PATIENCE`].
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    until_within(PATIENCE, what, ask)
}

/// Like [`until`], with a deadline of its own.
///
/// # Errors
/// If there was no answer within `patience`.
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
