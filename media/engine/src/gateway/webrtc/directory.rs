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
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use headwater_api::StreamName;

use crate::access::Permit;
use crate::gateway::webrtc::play::worker_handle::WorkerHandle;
use crate::gateway::webrtc::transport::session_id::SessionId;
use crate::runtime::client_pool::{ClientPool, PoolError, PoolPlace, SharePolicy};
use crate::runtime::placement::Placement;

/// A worker gets at most this many sessions more than another. This number of viewers at 3 Mbit/s
/// keeps a slow core 20 % busy; all may arrive before the load is measured.
const MAX_SESSION_IMBALANCE: usize = 256;

/// All sessions of this node, and the number of sessions per worker.
#[derive(Debug)]
pub(crate) struct SessionDirectory {
    max_sessions: usize,
    connecting_places: ClientPool,
    connected_places: ClientPool,
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
    /// Address that sent the offer.
    client: IpAddr,
    /// Its place among the connecting sessions, later among the connected ones.
    _place: PoolPlace,
    /// Ends the session when its viewer would no longer be admitted.
    _permit: Option<Permit>,
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
    /// sessions on this number of workers, shared among clients.
    pub(crate) fn new(max_sessions: usize, max_connecting: usize, workers: usize, shares: &SharePolicy) -> Self {
        let sessions_per_worker = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        Self {
            max_sessions,
            connecting_places: shares.pool(max_connecting),
            connected_places: shares.pool(max_sessions),
            sessions: Mutex::default(),
            sessions_per_worker,
            placement: Placement::new(workers, MAX_SESSION_IMBALANCE),
        }
    }

    /// Adds a session of `client` that is not connected. If there are too many of these, removes
    /// the oldest one.
    ///
    /// # Errors
    /// Fails if the node is full, all workers have ended, or the client has its share.
    pub(crate) fn add(
        &self,
        id: SessionId,
        stream: &StreamName,
        workers: &[WorkerHandle],
        client: IpAddr,
    ) -> Result<Added, PoolError> {
        let full = PoolError::Full { places: self.max_sessions };
        let mut sessions = self.lock();
        // The place itself is taken by `connect`.
        drop(self.connected_places.take(client)?);
        let mut displaced = None;
        let place = match self.connecting_places.take(client) {
            Err(PoolError::Full { .. }) => {
                let oldest = sessions.connecting.first_key_value().map(|(_, oldest)| *oldest);
                displaced = oldest.and_then(|oldest| Some((oldest, self.remove_from(&mut sessions, &oldest)?)));
                self.connecting_places.take(client)?
            }
            place => place?,
        };
        let count = |(worker, count): (&WorkerHandle, &AtomicUsize)| {
            (!worker.liveness.has_ended()).then(|| count.load(Ordering::Relaxed))
        };
        let session_counts: Vec<_> = workers.iter().zip(&self.sessions_per_worker).map(count).collect();
        let worker = self
            .placement
            .pick(&session_counts, || workers.iter().map(|worker| worker.liveness.busy_time()).collect())
            .ok_or(full)?;
        self.sessions_per_worker[worker].fetch_add(1, Ordering::Relaxed);
        let age = sessions.new_age();
        sessions.connecting.insert(age, id);
        let entry = Entry { stream: stream.clone(), worker, age: Some(age), client, _place: place, _permit: None };
        sessions.by_id.insert(id, entry);
        Ok(Added { worker, displaced })
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

    /// Records that a session is connected. Returns false if it was displaced, the node is full or
    /// its client has its share.
    pub(crate) fn connect(&self, id: &SessionId) -> bool {
        let mut sessions = self.lock();
        let Some(entry) = sessions.by_id.get_mut(id) else { return false };
        if let Some(age) = entry.age {
            let Ok(place) = self.connected_places.take(entry.client) else { return false };
            (entry.age, entry._place) = (None, place);
            sessions.connecting.remove(&age);
        }
        true
    }

    /// Keeps a permit for the life of a session, if it is still there.
    pub(crate) fn set_permit(&self, id: &SessionId, permit: Permit) {
        if let Some(entry) = self.lock().by_id.get_mut(id) {
            entry._permit = Some(permit);
        }
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

    fn directory(max_sessions: usize, max_connecting: usize) -> SessionDirectory {
        SessionDirectory::new(max_sessions, max_connecting, 1, &SharePolicy::new(&headwater_api::Config::default()))
    }

    fn add_for(
        directory: &SessionDirectory,
        workers: &[WorkerHandle],
        client: &str,
    ) -> Result<(SessionId, Option<SessionId>), PoolError> {
        let (id, name) = (SessionId::random(), StreamName::new("live", "a").unwrap());
        let added = directory.add(id, &name, workers, client.parse().unwrap())?;
        Ok((id, added.displaced.map(|(displaced, _)| displaced)))
    }

    fn add(directory: &SessionDirectory, workers: &[WorkerHandle]) -> (SessionId, Option<SessionId>) {
        add_for(directory, workers, "127.0.0.1").unwrap()
    }

    #[test]
    fn offers_that_never_connect_displace_only_each_other() {
        let (directory, workers) = (directory(2, 3), workers());
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
        let (directory, workers) = (directory(2, 2), workers());
        let (first, _) = add(&directory, &workers);
        let (second, _) = add(&directory, &workers);
        directory.renew(&first);
        assert_eq!(add(&directory, &workers).1, Some(second));
        assert!(directory.connect(&first));
    }

    #[test]
    fn full_node_refuses_offers_and_sessions_that_connect_too_late() {
        let (directory, workers) = (directory(1, 5), workers());
        let ((first, _), (second, _)) = (add(&directory, &workers), add(&directory, &workers));
        assert!(directory.connect(&first) && !directory.connect(&second));
        let refused = add_for(&directory, &workers, "127.0.0.1").unwrap_err();
        assert_eq!(refused, PoolError::Full { places: 1 });
        directory.remove(&first);
        directory.remove(&first);
        assert!(directory.connect(&second));
        directory.remove(&second);
        assert_eq!(directory.sessions_per_worker[0].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn offers_of_one_address_displace_no_offer_of_another() {
        let (directory, workers) = (directory(100, 8), workers());
        let flood: Vec<_> = (0..100).map(|_| add_for(&directory, &workers, "192.0.2.1")).collect();
        assert_eq!(flood.iter().filter(|added| added.is_ok()).count(), 4);
        assert_eq!(flood[99], Err(PoolError::ShareUsed { share: 2, places: 8 }));
        let viewers = ["192.0.2.2", "192.0.2.2", "192.0.2.3", "192.0.2.3"];
        let viewers = viewers.map(|client| add_for(&directory, &workers, client).unwrap().0);
        assert_eq!(
            add_for(&directory, &workers, "192.0.2.1").unwrap_err(),
            PoolError::ShareUsed { share: 2, places: 8 }
        );
        // All places are taken: the oldest offer, one of the flood, is displaced.
        let (last, displaced) = add_for(&directory, &workers, "192.0.2.4").unwrap();
        assert_eq!(displaced, Some(flood[0].as_ref().unwrap().0));
        assert!(viewers.iter().chain([&last]).all(|id| directory.connect(id)));
    }

    #[test]
    fn viewers_of_one_address_take_at_most_their_share_of_a_fuller_node() {
        let (directory, workers) = (directory(8, 100), workers());
        let connected: Vec<_> = (0..4).map(|_| add_for(&directory, &workers, "192.0.2.1").unwrap().0).collect();
        let (late, _) = add_for(&directory, &workers, "192.0.2.1").unwrap();
        assert!(connected.iter().all(|id| directory.connect(id)));
        assert!(!directory.connect(&late), "half of the sessions are taken");
        assert_eq!(
            add_for(&directory, &workers, "192.0.2.1").unwrap_err(),
            PoolError::ShareUsed { share: 2, places: 8 }
        );
        let (other, _) = add_for(&directory, &workers, "192.0.2.2").unwrap();
        assert!(directory.connect(&other));
        connected.iter().chain([&late, &other]).for_each(|id| directory.remove(id));
        assert_eq!((directory.connecting_places.taken(), directory.connected_places.taken()), (0, 0));
    }
}
