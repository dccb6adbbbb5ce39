//! The directory of the sessions on this node: the stream and the worker of each.
//!
//! ```text
//!   add --> connecting --connect--> connected --remove-->
//!              |  the oldest is displaced when there are too many
//! ```
//!
//! Signalling adds sessions and finds them; the workers report their progress and remove them.
//! Chooses the worker of a new session. Must not know SDP or packets.

use std::collections::{BTreeMap, HashMap};
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
    max_connecting: usize,
    sessions: Mutex<Sessions>,
    sessions_per_worker: Vec<AtomicUsize>,
    placement: Placement,
}

#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<SessionId, Entry>,
    /// Sessions that are not connected, by their age.
    connecting: BTreeMap<u64, SessionId>,
    /// Increases with every session, and with every first check of one.
    next_age: u64,
}

#[derive(Debug)]
struct Entry {
    stream: StreamName,
    worker: usize,
    /// The key in `connecting`; `None` once the session is connected.
    age: Option<u64>,
}

/// A session that was added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Added {
    /// Its worker.
    pub(crate) worker: usize,
    /// The session removed to stay within the limit of connecting ones, and its worker.
    pub(crate) displaced: Option<(SessionId, usize)>,
}

impl SessionDirectory {
    /// Creates an empty directory of at most `max_sessions` connected and `max_connecting` other
    /// sessions on this number of workers.
    pub(crate) fn new(max_sessions: usize, max_connecting: usize, workers: usize) -> Self {
        let sessions_per_worker = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        Self {
            max_sessions,
            max_connecting,
            sessions: Mutex::default(),
            sessions_per_worker,
            placement: Placement::new(workers, MAX_SESSION_IMBALANCE),
        }
    }

    /// Adds a session that is not connected. If there are too many of these, removes the oldest
    /// one. Returns `None` if the node is full or all workers have ended.
    pub(crate) fn add(&self, id: SessionId, stream: &StreamName, workers: &[WorkerHandle]) -> Option<Added> {
        let mut sessions = self.lock();
        if sessions.connected() >= self.max_sessions {
            return None;
        }
        let displaced = if sessions.connecting.len() >= self.max_connecting {
            let oldest = sessions.connecting.first_key_value().map(|(_, oldest)| *oldest);
            oldest.and_then(|oldest| Some((oldest, self.remove_from(&mut sessions, &oldest)?)))
        } else {
            None
        };
        let count = |(worker, count): (&WorkerHandle, &AtomicUsize)| {
            (!worker.liveness.has_ended()).then(|| count.load(Ordering::Relaxed))
        };
        let session_counts: Vec<_> = workers.iter().zip(&self.sessions_per_worker).map(count).collect();
        let worker = self
            .placement
            .pick(&session_counts, || workers.iter().map(|worker| worker.liveness.busy_time()).collect())?;
        self.sessions_per_worker[worker].fetch_add(1, Ordering::Relaxed);
        let age = sessions.new_age();
        sessions.connecting.insert(age, id);
        sessions.by_id.insert(id, Entry { stream: stream.clone(), worker, age: Some(age) });
        Some(Added { worker, displaced })
    }

    /// Makes a session the youngest of those that are not connected: a valid check has arrived, so
    /// it is likely to connect.
    pub(crate) fn renew(&self, id: &SessionId) {
        let mut sessions = self.lock();
        let new_age = sessions.new_age();
        let old_age = sessions.by_id.get_mut(id).and_then(|entry| entry.age.as_mut());
        if let Some(age) = old_age.map(|age| std::mem::replace(age, new_age)) {
            sessions.connecting.remove(&age);
            sessions.connecting.insert(new_age, *id);
        }
    }

    /// Records that a session is connected. Returns false if it was displaced or the node is full.
    pub(crate) fn connect(&self, id: &SessionId) -> bool {
        let mut sessions = self.lock();
        if sessions.connected() >= self.max_sessions {
            return false;
        }
        let Some(entry) = sessions.by_id.get_mut(id) else { return false };
        if let Some(age) = entry.age.take() {
            sessions.connecting.remove(&age);
        }
        true
    }

    /// Removes a session, if it is still there.
    pub(crate) fn remove(&self, id: &SessionId) {
        let _ = self.remove_from(&mut self.lock(), id);
    }

    /// Removes a session and returns its worker.
    fn remove_from(&self, sessions: &mut Sessions, id: &SessionId) -> Option<usize> {
        let Entry { worker, age, .. } = sessions.by_id.remove(id)?;
        if let Some(age) = age {
            sessions.connecting.remove(&age);
        }
        self.sessions_per_worker[worker].fetch_sub(1, Ordering::Relaxed);
        Some(worker)
    }

    /// Returns the stream and the worker of a session.
    pub(crate) fn find(&self, id: &SessionId) -> Option<(StreamName, usize)> {
        self.lock().by_id.get(id).map(|entry| (entry.stream.clone(), entry.worker))
    }

    /// Returns true if a session was added and not removed.
    pub(crate) fn contains(&self, id: &SessionId) -> bool {
        self.lock().by_id.contains_key(id)
    }

    /// Returns the maximum number of connected sessions.
    pub(crate) fn max_sessions(&self) -> usize {
        self.max_sessions
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    fn connected(&self) -> usize {
        self.by_id.len() - self.connecting.len()
    }

    fn new_age(&mut self) -> u64 {
        self.next_age += 1;
        self.next_age
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gateway::webrtc::play::mailbox::Mailbox;
    use crate::gateway::webrtc::transport::liveness::Liveness;
    use crate::gateway::webrtc::transport::udp::Socket;

    fn workers() -> Vec<WorkerHandle> {
        let mailbox = Arc::new(Mailbox::new(Socket::bind(0).unwrap().wake_handle()));
        vec![WorkerHandle { mailbox, liveness: Arc::new(Liveness::new()), candidates: Vec::new() }]
    }

    fn add(directory: &SessionDirectory, workers: &[WorkerHandle]) -> (SessionId, Option<SessionId>) {
        let id = SessionId::random();
        let added = directory.add(id, &StreamName::new("live", "a").unwrap(), workers).unwrap();
        (id, added.displaced.map(|(displaced, _)| displaced))
    }

    #[test]
    fn offers_that_never_connect_displace_only_each_other() {
        let (directory, workers) = (SessionDirectory::new(2, 3, 1), workers());
        let (connected, _) = add(&directory, &workers);
        assert!(directory.connect(&connected));
        let waiting: Vec<_> = (0..10_000).map(|_| add(&directory, &workers)).collect();
        assert!(waiting[..3].iter().all(|(_, displaced)| displaced.is_none()));
        for (n, (_, displaced)) in waiting.iter().enumerate().skip(3) {
            assert_eq!(*displaced, Some(waiting[n - 3].0));
        }
        // A viewer still connects, and the displaced sessions do not.
        assert!(directory.contains(&connected));
        assert!(!directory.connect(&waiting[0].0) && directory.connect(&waiting[9_999].0));
        assert_eq!(directory.sessions_per_worker[0].load(Ordering::Relaxed), 4);
    }

    #[test]
    fn session_with_a_valid_check_outlasts_those_without() {
        let (directory, workers) = (SessionDirectory::new(2, 2, 1), workers());
        let (first, _) = add(&directory, &workers);
        let (second, _) = add(&directory, &workers);
        directory.renew(&first);
        assert_eq!(add(&directory, &workers).1, Some(second));
        assert!(directory.connect(&first));
    }

    #[test]
    fn full_node_refuses_offers_and_sessions_that_connect_too_late() {
        let (directory, workers) = (SessionDirectory::new(1, 5, 1), workers());
        let ((first, _), (second, _)) = (add(&directory, &workers), add(&directory, &workers));
        assert!(directory.connect(&first) && !directory.connect(&second));
        let name = StreamName::new("live", "a").unwrap();
        assert_eq!(directory.add(SessionId::random(), &name, &workers), None);
        directory.remove(&first);
        directory.remove(&first);
        assert!(directory.connect(&second));
        directory.remove(&second);
        assert_eq!(directory.sessions_per_worker[0].load(Ordering::Relaxed), 0);
    }
}
