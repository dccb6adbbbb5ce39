//! The permits of running sessions: what admitted each client, and what to do when it no longer
//! would.
//!
//! ```text
//!   hold --> held --dropped by the session----------------------> released
//!             '-----would no longer be admitted--> on_end is called once, then as above
//! ```
//!
//! Must not know what a session is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::AccessError;
use super::grounds::Grounds;

/// Called with the reason when a client would no longer be admitted.
type OnEnd = Box<dyn FnOnce(AccessError) + Send>;

/// The permits that are held; clones share them.
#[derive(Clone, Default)]
pub(super) struct Permits(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    /// Bounded by the limits on sessions.
    held: HashMap<u64, Entry>,
    next_id: u64,
}

struct Entry {
    grounds: Grounds,
    /// `None` once it has been called.
    on_end: Option<OnEnd>,
}

impl std::fmt::Debug for Permits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permits({})", self.lock().held.len())
    }
}

/// The right of one session to continue. Held for its life; dropping it releases it.
#[derive(Debug)]
pub struct Permit {
    permits: Permits,
    id: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let entry = self.permits.lock().held.remove(&self.id);
        // Dropped without the lock: `on_end` may own anything.
        drop(entry);
    }
}

impl Permits {
    /// Adds a permit. `on_end` is called at most once, by [`Permits::end`], and must not block.
    pub(super) fn hold(&self, grounds: Grounds, on_end: OnEnd) -> Permit {
        let mut table = self.lock();
        let id = table.next_id;
        table.next_id += 1;
        table.held.insert(id, Entry { grounds, on_end: Some(on_end) });
        Permit { permits: self.clone(), id }
    }

    /// Ends the sessions of all clients for which `recheck` fails.
    pub(super) fn end(&self, recheck: impl Fn(&Grounds) -> Result<(), AccessError>) {
        let mut ended = Vec::new();
        let mut table = self.lock();
        table.held.retain(|_, entry| {
            let Err(reason) = recheck(&entry.grounds) else { return true };
            let on_end = entry.on_end.take();
            ended.push((entry.grounds.clone(), reason, on_end));
            false
        });
        drop(table);
        for (grounds, reason, on_end) in ended {
            let (stream, action) = (grounds.stream.as_str(), grounds.action.as_str());
            log::info!(stream, action, peer:% = grounds.client, reason = reason.code(); "session is no longer permitted");
            if let Some(on_end) = on_end {
                on_end(reason);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use headwater_api::StreamName;
    use headwater_api::documents::Grant;

    use super::*;
    use crate::access::grounds::{Evidence, OPEN};

    fn grounds(name: &str) -> Grounds {
        Grounds {
            action: Grant::Play,
            stream: StreamName::parse(name).unwrap(),
            client: Ipv4Addr::LOCALHOST.into(),
            evidence: Evidence::without_token(OPEN),
            session_ends_at_ms: None,
            unredeemed: None,
        }
    }

    #[test]
    fn only_sessions_that_are_no_longer_permitted_end_and_each_of_them_once() {
        let permits = Permits::default();
        let ended = Arc::new(Mutex::new(Vec::new()));
        let hold = |name: &'static str| {
            let ended = Arc::clone(&ended);
            permits.hold(grounds(name), Box::new(move |reason| ended.lock().unwrap().push((name, reason))))
        };
        let (_first, _second, released) = (hold("live/a"), hold("live/b"), hold("live/b"));
        drop(released);
        let recheck = |grounds: &Grounds| {
            if grounds.stream.as_str() == "live/b" { Err(AccessError::TokenRevoked) } else { Ok(()) }
        };
        for _ in 0..2 {
            permits.end(recheck);
            assert_eq!(*ended.lock().unwrap(), [("live/b", AccessError::TokenRevoked)]);
        }
    }

    #[test]
    fn permit_may_be_dropped_while_its_session_is_ended() {
        let permits = Permits::default();
        let slot = Arc::new(Mutex::new(None));
        let held = Arc::clone(&slot);
        let permit = permits.hold(grounds("live/a"), Box::new(move |_| drop(held.lock().unwrap().take())));
        *slot.lock().unwrap() = Some(permit);
        permits.end(|_| Err(AccessError::Closed));
        assert!(slot.lock().unwrap().is_none());
    }
}
