//! The viewers of one case: started at short intervals, stopped together.
//!
//! This file must not know their protocol.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::task::JoinSet;

use crate::tally::Tally;

/// Running viewers. Dropping it stops them all.
#[derive(Debug, Default)]
pub(crate) struct Viewers {
    tasks: JoinSet<()>,
    first_error: Arc<Mutex<Option<String>>>,
    pub(crate) tally: Arc<Tally>,
}

impl Viewers {
    /// Viewers that share an existing tally.
    pub(crate) fn with_tally(tally: Arc<Tally>) -> Self {
        Self { tally, ..Self::default() }
    }

    /// Starts a viewer. A viewer that returns an error has failed.
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
    /// If they did not join within `timeout`; includes the first viewer's error.
    pub(crate) async fn wait_joined(&self, count: usize, timeout: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let (joined, failed) = (self.tally.joined(), self.tally.counts().failed);
            if joined >= count {
                return Ok(());
            }
            if failed > 0 && joined + failed as usize >= count || start.elapsed() > timeout {
                let why = self.first_error().unwrap_or_else(|| "no error was reported".to_owned());
                bail!("only {joined} of {count} viewers joined, {failed} failed: {why}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The error of the first viewer that failed.
    pub(crate) fn first_error(&self) -> Option<String> {
        self.first_error.lock().ok()?.clone()
    }
}
