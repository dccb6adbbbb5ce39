//! Which connections of the health listener stay open: a value without sockets, timers or tasks.
//!
//! Peers on this machine (the daemon, `headwaterd doctor`) have reserved places that no other peer
//! can take. A new connection replaces the one that has been idle longest; a connection whose
//! request is being answered is never replaced. Must not know HTTP.

use std::collections::HashMap;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Maximum number of connections.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// Places that only peers on this machine can take.
const RESERVED_FOR_LOCAL_PEERS: usize = 16;

/// The open connections, by id.
#[derive(Debug, Default)]
pub(super) struct ConnectionTable {
    connections: HashMap<u64, Connection>,
    next_id: u64,
}

#[derive(Debug)]
struct Connection {
    is_local: bool,
    /// `None` while a request is being answered.
    idle_since: Option<Instant>,
    closed: CancellationToken,
}

impl ConnectionTable {
    /// Adds a connection. Returns its id, and the token that is cancelled when another connection
    /// replaces it; `None` if it must be refused, because all others are being answered.
    pub(super) fn admit(&mut self, is_local: bool, now: Instant) -> Option<(u64, CancellationToken)> {
        let remote = self.connections.values().filter(|c| !c.is_local).count();
        let is_full = self.connections.len() >= MAX_CONNECTIONS;
        let exceeds_share = !is_local && remote >= MAX_CONNECTIONS - RESERVED_FOR_LOCAL_PEERS;
        if is_full || exceeds_share {
            let replaced = self.replaceable(is_local)?;
            if let Some(connection) = self.connections.remove(&replaced) {
                connection.closed.cancel();
            }
        }
        let (id, closed) = (self.next_id, CancellationToken::new());
        self.next_id += 1;
        self.connections.insert(id, Connection { is_local, idle_since: Some(now), closed: closed.clone() });
        Some((id, closed))
    }

    /// The idle connection that a new one replaces: a remote one before a local one, which only
    /// another local peer may replace, and the oldest first.
    fn replaceable(&self, by_local: bool) -> Option<u64> {
        let idle = self.connections.iter().filter_map(|(id, c)| Some((c.is_local, c.idle_since?, *id)));
        idle.filter(|(is_local, ..)| by_local || !is_local).min().map(|(.., id)| id)
    }

    /// Records that a request is being answered.
    pub(super) fn on_request(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.idle_since = None;
        }
    }

    /// Records that a request has been answered, or that bytes of an answer have been sent.
    pub(super) fn on_answer(&mut self, id: u64, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.idle_since = Some(now);
        }
    }

    /// Records that bytes were sent: an idle connection that still receives its answer stays open.
    pub(super) fn on_bytes_sent(&mut self, id: u64, now: Instant) {
        if let Some(since) = self.connections.get_mut(&id).and_then(|connection| connection.idle_since.as_mut()) {
            *since = now;
        }
    }

    /// Since when the connection has been idle; `None` while a request is being answered.
    pub(super) fn idle_since(&self, id: u64) -> Option<Instant> {
        self.connections.get(&id).and_then(|connection| connection.idle_since)
    }

    /// Removes a connection that has ended.
    pub(super) fn remove(&mut self, id: u64) {
        self.connections.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const REMOTE: usize = MAX_CONNECTIONS - RESERVED_FOR_LOCAL_PEERS;

    #[test]
    fn local_peers_keep_places_that_remote_peers_cannot_take() {
        let (mut table, now) = (ConnectionTable::default(), Instant::now());
        let remote: Vec<_> = (0..1_000).filter_map(|_| table.admit(false, now)).collect();
        assert_eq!(table.connections.len(), REMOTE);
        assert_eq!(remote.iter().filter(|(_, closed)| !closed.is_cancelled()).count(), REMOTE);
        let local: Vec<_> = (0..RESERVED_FOR_LOCAL_PEERS).map(|_| table.admit(true, now).unwrap()).collect();
        assert_eq!(remote.iter().filter(|(_, closed)| !closed.is_cancelled()).count(), REMOTE, "none was replaced");
        for _ in 0..1_000 {
            table.admit(false, now);
        }
        assert!(local.iter().all(|(_, closed)| !closed.is_cancelled()), "a remote peer replaced a local one");
    }

    #[test]
    fn new_connection_replaces_the_one_that_has_been_idle_longest() {
        let (mut table, start) = (ConnectionTable::default(), Instant::now());
        let at = |n: u64| start + Duration::from_millis(n);
        let all: Vec<_> = (0..REMOTE as u64).map(|n| table.admit(false, at(n)).unwrap()).collect();
        // The first one is being answered, the second has sent a request since.
        table.on_request(all[0].0);
        table.on_request(all[1].0);
        table.on_answer(all[1].0, at(1_000));
        table.admit(false, at(1_001)).unwrap();
        let closed: Vec<_> = all.iter().map(|(_, closed)| closed.is_cancelled()).collect();
        assert_eq!(closed.iter().position(|closed| *closed), Some(2));
        assert_eq!(closed.iter().filter(|closed| **closed).count(), 1);
    }

    #[test]
    fn connection_is_refused_only_if_all_others_are_being_answered() {
        let (mut table, now) = (ConnectionTable::default(), Instant::now());
        for _ in 0..REMOTE {
            let (id, _) = table.admit(false, now).unwrap();
            table.on_request(id);
            table.on_bytes_sent(id, now);
        }
        assert!(table.admit(false, now).is_none());
        let (local, _) = table.admit(true, now).unwrap();
        table.remove(local);
        assert_eq!(table.connections.len(), REMOTE);
    }
}
