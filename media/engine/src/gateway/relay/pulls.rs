//! The running pulls of this node, and what they share.
//!
//! Must not know how a stream is pulled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_api::StreamName;
use headwater_wire::relay::ClusterSecret;
use tokio::sync::{Semaphore, watch};

use crate::gateway::relay::failed_lookups::FailedLookups;
use crate::gateway::relay::metrics::Metrics;
use crate::gateway::relay::owner_watch::OwnerWatch;
use crate::gateway::relay::resolver::StreamResolver;
use crate::gateway::relay::timing::Timing;
use crate::gateway::relay::upstreams::Upstreams;
use crate::hub::{FindError, Stream};

/// Searches at a time; further viewers of unknown streams get an error at once.
pub(super) const MAX_SEARCHES: usize = 256;

/// What all pulls share.
#[derive(Debug)]
pub(super) struct Pulls {
    pub(super) secret: ClusterSecret,
    pub(super) resolver: Arc<dyn StreamResolver>,
    pub(super) timing: Timing,
    pub(super) upstreams: Upstreams,
    pub(super) metrics: Metrics,
    /// One entry per running pull, including those still searching. Bounded by the hub's limits.
    running: Mutex<HashMap<StreamName, RunningPull>>,
    /// Pulls without a source, of streams that may not exist.
    pub(super) searches: Arc<Semaphore>,
    failed: Mutex<FailedLookups>,
}

/// What others see of a running pull.
#[derive(Debug)]
pub(super) struct RunningPull {
    pub(super) state: watch::Receiver<PullState>,
    pub(super) owner_watch: Arc<OwnerWatch>,
}

/// State of a pull, watched by the viewers that wait for it.
#[derive(Debug, Clone)]
pub(super) enum PullState {
    /// No source yet; with the error to report if the viewer stops waiting.
    Searching(FindError),
    Live(Arc<Stream>),
    Ended(FindError),
}

impl PullState {
    /// The error for a viewer that stops waiting.
    pub(super) fn error(&self) -> FindError {
        match self {
            Self::Searching(error) | Self::Ended(error) => *error,
            Self::Live(_) => FindError::NotPublished,
        }
    }
}

impl Pulls {
    /// No pull runs yet. `resolver` finds the nodes that have a stream.
    pub(super) fn new(secret: ClusterSecret, resolver: Arc<dyn StreamResolver>, timing: Timing) -> Self {
        Self {
            secret,
            resolver,
            timing,
            upstreams: Upstreams::default(),
            metrics: Metrics::default(),
            running: Mutex::default(),
            searches: Arc::new(Semaphore::new(MAX_SEARCHES)),
            failed: Mutex::default(),
        }
    }

    pub(super) fn failed_lookups(&self) -> MutexGuard<'_, FailedLookups> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running(&self) -> MutexGuard<'_, HashMap<StreamName, RunningPull>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
