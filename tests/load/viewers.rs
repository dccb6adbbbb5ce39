//! The viewers of one case: started with a short distance between them, ended together.
//!
//! This file must not know which protocol they speak.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::task::JoinSet;

use crate::tally::Tally;

/// Dropping it ends all viewers.
#[derive(Debug, Default)]
pub(crate) struct Viewers {
    tasks: JoinSet<()>,
    first_error: Arc<Mutex<Option<String>>>,
    pub(crate) tally: Arc<Tally>,
}

impl Viewers {
    /// Viewers that add to counters which outlive them.
    pub(crate) fn with_tally(tally: Arc<Tally>) -> Self {
        Self { tally, ..Self::default() }
    }

    /// Starts one; if it ends by itself, it has failed.
    pub(crate) fn add(&mut self, viewer: impl Future<Output = Result<()>> + Send + 'static) {
        let (tally, first_error) = (Arc::clone(&self.tally), Arc::clone(&self.first_error));
        self.tasks.spawn(async move {
            let Err(e) = viewer.await else { return };
            tally.add_failed();
            if let Ok(mut slot) = first_error.lock() {
                slot.get_or_insert(format!("{e:#}"));
            }
        });
    }

    /// Waits until `count` viewers have joined.
    ///
    /// # Errors
    /// They did not within `patience`; says what the first of them met.
    pub(crate) async fn wait_joined(&self, count: usize, timeout: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let (joined, failed) = (self.tally.joined(), self.tally.counts().failed);
            if joined >= count {
                return Ok(());
            }
            if failed > 0 && joined + failed as usize >= count || start.elapsed() > timeout {
                let why = self.first_error().unwrap_or_else(|| "no error, just nothing".to_owned());
                bail!("only {joined} of {count} viewers joined, {failed} failed: {why}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the first failed viewer met.
    pub(crate) fn first_error(&self) -> Option<String> {
        self.first_error.lock().ok()?.clone()
    }
}
