//! The directory of the sessions on this node: the stream and the worker of each.
//!
//! Signalling adds sessions and finds them; the workers remove them. Chooses the worker of a new
//! session. Must not know SDP or packets.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use headwater_api::StreamName;

use crate::gateway::webrtc::play::worker_handle::WorkerHandle;
use crate::gateway::webrtc::transport::session_id::SessionId;
use crate::runtime::placement::Placement;

/// A worker gets at most this many sessions more than another. This number of viewers at 3 Mbit/s
/// keeps a slow core 20 % busy; all may arrive before the load is measured.
const MAX_SESSION_IMBALANCE: usize = 256;

/// All sessions of this node, and the number of sessions per worker.
#[derive(Debug)]
pub(crate) struct SessionDirectory {
    max_sessions: usize,
    sessions: Mutex<HashMap<SessionId, (StreamName, usize)>>,
    sessions_per_worker: Vec<AtomicUsize>,
    placement: Placement,
}

impl SessionDirectory {
    /// Creates an empty directory of at most `max_sessions` sessions on this number of workers.
    pub(crate) fn new(max_sessions: usize, workers: usize) -> Self {
        let sessions_per_worker = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        Self {
            max_sessions,
            sessions: Mutex::default(),
            sessions_per_worker,
            placement: Placement::new(workers, MAX_SESSION_IMBALANCE),
        }
    }

    /// Adds a session. Returns its worker, or `None` if the node is full or all workers have ended.
    pub(crate) fn add(&self, id: SessionId, stream: &StreamName, workers: &[WorkerHandle]) -> Option<usize> {
        let mut sessions = self.lock();
        if sessions.len() >= self.max_sessions {
            return None;
        }
        let count = |(worker, count): (&WorkerHandle, &AtomicUsize)| {
            (!worker.liveness.has_ended()).then(|| count.load(Ordering::Relaxed))
        };
        let session_counts: Vec<_> = workers.iter().zip(&self.sessions_per_worker).map(count).collect();
        let worker = self
            .placement
            .pick(&session_counts, || workers.iter().map(|worker| worker.liveness.busy_time()).collect())?;
        self.sessions_per_worker[worker].fetch_add(1, Ordering::Relaxed);
        sessions.insert(id, (stream.clone(), worker));
        Some(worker)
    }

    /// Removes a session, if it is still there.
    pub(crate) fn remove(&self, id: &SessionId) {
        if let Some((_, worker)) = self.lock().remove(id) {
            self.sessions_per_worker[worker].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns the stream and the worker of a session.
    pub(crate) fn find(&self, id: &SessionId) -> Option<(StreamName, usize)> {
        self.lock().get(id).cloned()
    }

    /// Returns the maximum number of sessions.
    pub(crate) fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, (StreamName, usize)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
