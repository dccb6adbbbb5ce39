//! Snapshot of the cluster for pages and the REST API: all nodes and all streams of the registry.
//!
//! If the registry is unreachable, the last snapshot is returned at once, with its age. The registry
//! is queried at most once per second, independent of the number of callers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_api::config::Role;
use headwater_api::error::Chain;
use headwater_api::node::NodeRecord;
use headwater_api::stream::StreamRecord;
use headwater_registry::{Registry, RegistryError};
use tokio::sync::watch;

use crate::runtime::worker_pool::spawn_shared;
use tokio::time::Instant;

/// Caches the latest snapshot of the cluster; clones share it.
#[derive(Debug)]
pub struct View<R>(Arc<Inner<R>>);

#[derive(Debug)]
struct Inner<R> {
    registry: R,
    known: Mutex<Known>,
    asking: AtomicBool,
    /// Number of finished queries, failed ones included.
    rounds: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    seen: Option<(Instant, Arc<Cluster>)>,
    asked: Option<Instant>,
    away: bool,
}

/// All nodes sorted by id, and all streams sorted by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// All registered nodes, including dead ones that have not been removed yet.
    pub nodes: Vec<NodeRecord>,
    /// All streams that nodes have claimed; a node with its own registry claims none.
    pub streams: Vec<StreamRecord>,
}

/// The latest snapshot, and how old it is.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `None` if the registry never answered.
    pub cluster: Option<Arc<Cluster>>,
    /// Time since the registry answered; zero if it never did.
    pub age: Duration,
    /// True if the last query failed.
    pub away: bool,
}

/// Result of a request to remove a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The node was removed.
    Removed,
    /// The node is alive: its next heartbeat would register it again.
    Alive,
    /// No node has this id.
    Unknown,
}

/// Result of a request to drain a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainWish {
    /// The node receives the request with its next heartbeat.
    Left,
    /// The node is dead.
    Dead,
    /// Nodes of this role cannot be drained on request.
    OfRole(Role),
    /// No node has this id, or it has restarted or deregistered since.
    Unknown,
}

impl<R> Clone for View<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Registry + std::fmt::Debug + 'static> View<R> {
    /// An empty cache in front of `registry`.
    pub fn new(registry: R) -> Self {
        let (known, asking) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Inner { registry, known, asking, rounds: watch::Sender::new(0) }))
    }

    /// Returns the latest snapshot, at most one second old if the registry answers at once. Waits up
    /// to two seconds for the first one, later up to 250 ms.
    pub async fn look(&self) -> Seen {
        let mut rounds = self.0.rounds.subscribe();
        let patience = {
            let known = self.known();
            match &known.seen {
                _ if known.asked.is_some_and(|at| at.elapsed() < FRESH) && !self.0.asking.load(Ordering::Acquire) => {
                    return known.seen();
                }
                // Longer than the query may take: this waits for its end.
                None if !known.away => 2 * ASK,
                Some(_) if !known.away => WAIT,
                _ => Duration::ZERO,
            }
        };
        self.ask();
        let _ = tokio::time::timeout(patience, rounds.changed()).await;
        self.known().seen()
    }

    /// Removes a dead node. Waits for the registry, at most two seconds.
    ///
    /// # Errors
    /// If the registry fails or does not answer in time.
    pub async fn remove(&self, id: &str) -> Result<Removal, RegistryError> {
        let removal = async {
            match self.0.registry.node(id).await? {
                None => Ok(Removal::Unknown),
                Some(record) if record.alive => Ok(Removal::Alive),
                Some(_) => self.0.registry.remove_node(id).await.map(|_| Removal::Removed),
            }
        };
        let removal = tokio::time::timeout(CHANGE, removal).await.unwrap_or_else(|_| Err(late("remove a node")))?;
        // The next caller must see the change.
        self.known().asked = None;
        Ok(removal)
    }

    /// Requests that an origin or an edge drains. Waits for the registry, at most two seconds.
    ///
    /// # Errors
    /// If the registry fails or does not answer in time.
    pub async fn drain(&self, id: &str) -> Result<DrainWish, RegistryError> {
        let asking = async {
            let Some(record) = self.0.registry.node(id).await? else { return Ok(DrainWish::Unknown) };
            match record.node.role {
                role @ (Role::Standalone | Role::Registry) => Ok(DrainWish::OfRole(role)),
                Role::Origin | Role::Edge if !record.alive => Ok(DrainWish::Dead),
                Role::Origin | Role::Edge => match self.0.registry.ask_to_drain(&record.life()).await? {
                    true => Ok(DrainWish::Left),
                    // The node has restarted or deregistered in between.
                    false => Ok(DrainWish::Unknown),
                },
            }
        };
        let asked = tokio::time::timeout(CHANGE, asking).await.unwrap_or_else(|_| Err(late("ask a node to drain")))?;
        // The next caller must see the request.
        self.known().asked = None;
        Ok(asked)
    }

    /// Spawns a query of the registry, unless one is running.
    fn ask(&self) {
        if self.0.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        spawn_shared(async move {
            let asking = async { tokio::try_join!(this.0.registry.nodes(), this.0.registry.streams()) };
            let answer = tokio::time::timeout(ASK, asking).await.unwrap_or_else(|_| Err(late("list the cluster")));
            {
                let mut known = this.known();
                let now = Instant::now();
                known.asked = Some(now);
                if let Err(e) = &answer
                    && !known.away
                {
                    log::debug!(err:% = Chain(e); "registry could not list the cluster");
                }
                known.away = answer.is_err();
                if let Ok((nodes, streams)) = answer {
                    known.seen = Some((now, Arc::new(Cluster { nodes, streams })));
                }
            }
            this.0.asking.store(false, Ordering::Release);
            this.0.rounds.send_modify(|round| *round += 1);
        });
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn seen(&self) -> Seen {
        match &self.seen {
            Some((at, cluster)) => Seen { cluster: Some(Arc::clone(cluster)), age: at.elapsed(), away: self.away },
            None => Seen { cluster: None, age: Duration::ZERO, away: self.away },
        }
    }
}

fn late(attempted: &str) -> RegistryError {
    RegistryError::Unreachable {
        attempted: attempted.to_owned(),
        servers: "of the registry".to_owned(),
        source: "no answer in time".into(),
    }
}

/// A snapshot is returned without a new query for this duration.
const FRESH: Duration = Duration::from_secs(1);
/// For one query of the registry.
const ASK: Duration = Duration::from_secs(1);
/// How long a caller waits for a newer snapshot if there is an older one.
const WAIT: Duration = Duration::from_millis(250);
/// For a change, including the lookup before it.
const CHANGE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use headwater_api::config::{self, RegistryKind};
    use headwater_api::node::NodeDocument;
    use headwater_registry::{Embedded, Store, Timing};

    use super::*;

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("headwater-view-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// A registry whose leases last `lease_ms`.
        fn store(&self, lease_ms: u64) -> Store {
            let timing = Timing { lease: Duration::from_millis(lease_ms), ..Timing::default() };
            Store::Embedded(Embedded::open_with(&self.0, timing).unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn node(id: &str, role: Role) -> NodeDocument {
        NodeDocument {
            id: id.to_owned(),
            role,
            ..serde_json::from_str(r#"{"id": "", "role": "edge", "addresses": [], "version": "1"}"#).unwrap()
        }
    }

    async fn register(store: &Store, id: &str) {
        store.register(&node(id, Role::Edge), None).await.unwrap();
    }

    async fn ids(view: &View<Store>) -> Vec<String> {
        view.look().await.cluster.unwrap().nodes.iter().map(|n| n.node.id.clone()).collect()
    }

    #[tokio::test]
    async fn removed_dead_node_disappears_at_once_and_living_node_is_kept() {
        let folder = Folder::new("remove");
        let store = folder.store(200);
        register(&store, "dead").await;
        let mut dead = false;
        while !dead {
            tokio::task::yield_now().await;
            dead = !store.node("dead").await.unwrap().unwrap().alive;
        }
        register(&store, "alive").await;
        let view = View::new(store);
        assert_eq!(ids(&view).await, ["alive", "dead"]);
        assert_eq!(view.remove("alive").await.unwrap(), Removal::Alive);
        assert_eq!(view.remove("dead").await.unwrap(), Removal::Removed);
        assert_eq!(view.remove("dead").await.unwrap(), Removal::Unknown);
        assert_eq!(ids(&view).await, ["alive"]);
    }

    #[tokio::test]
    async fn only_living_origins_and_edges_accept_a_drain_request() {
        let folder = Folder::new("drain");
        let store = folder.store(60_000);
        for (id, role) in [("edge", Role::Edge), ("alone", Role::Standalone), ("database", Role::Registry)] {
            store.register(&node(id, role), None).await.unwrap();
        }
        let view = View::new(store);
        for (id, expected) in [
            ("edge", DrainWish::Left),
            ("alone", DrainWish::OfRole(Role::Standalone)),
            ("database", DrainWish::OfRole(Role::Registry)),
            ("nobody", DrainWish::Unknown),
        ] {
            assert_eq!(view.drain(id).await.unwrap(), expected, "{id}");
        }
        let seen = view.look().await.cluster.unwrap();
        let asked: Vec<_> = seen.nodes.iter().filter(|n| n.drain_asked).map(|n| n.node.id.as_str()).collect();
        assert_eq!(asked, ["edge"]);
    }

    #[tokio::test]
    async fn only_the_first_caller_waits_for_an_unreachable_registry() {
        let folder = Folder::new("away");
        let uri_file = folder.0.join("uri");
        // No server listens there.
        std::fs::write(&uri_file, "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300000").unwrap();
        let config = config::Registry { kind: RegistryKind::MongoDb, uri_file: Some(uri_file) };
        let view = View::new(Store::open(&config, &folder.0).await.unwrap());
        let first = view.look().await;
        assert!(first.away && first.cluster.is_none());
        let begun = Instant::now();
        for _ in 0..50 {
            assert!(view.look().await.away);
        }
        assert!(begun.elapsed() < 10 * ASK, "{:?}", begun.elapsed());
        assert!(view.remove("x").await.is_err());
    }
}
