//! Snapshot of the cluster for pages and the REST API: all nodes and all streams of the registry.
//!
//! If the registry is unreachable, the last snapshot is returned at once, with its age. The
//! registry is queried at most once per second, independent of the number of callers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_api::config::Role;
use headwater_api::documents::{NodeRecord, StreamRecord};
use headwater_api::error::Chain;
use headwater_registry::{Registry, RegistryError};
use tokio::sync::watch;

use crate::runtime::worker_pool::spawn_shared;
use tokio::time::Instant;

/// Caches the latest snapshot of the cluster; clones share it.
#[derive(Debug)]
pub struct ClusterSnapshotCache<R>(Arc<Inner<R>>);

#[derive(Debug)]
struct Inner<R> {
    registry: R,
    state: Mutex<CacheState>,
    query_running: AtomicBool,
    /// Number of finished queries, failed ones included.
    finished_queries: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct CacheState {
    latest: Option<(Instant, Arc<ClusterSnapshot>)>,
    queried_at: Option<Instant>,
    registry_unreachable: bool,
}

/// All nodes sorted by id, and all streams sorted by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClusterSnapshot {
    /// All registered nodes, including dead ones that have not been removed yet.
    pub nodes: Vec<NodeRecord>,
    /// All streams that nodes have claimed; a node with its own registry claims none.
    pub streams: Vec<StreamRecord>,
}

/// The latest snapshot, and how old it is.
#[derive(Debug, Clone)]
pub struct CachedSnapshot {
    /// `None` if the registry never answered.
    pub snapshot: Option<Arc<ClusterSnapshot>>,
    /// Time since the registry answered; zero if it never did.
    pub age: Duration,
    /// True if the last query failed.
    pub registry_unreachable: bool,
}

/// Result of a request to remove a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveOutcome {
    /// The node was removed.
    Removed,
    /// The node is alive: its next heartbeat would register it again.
    Alive,
    /// No node has this id.
    NotFound,
}

/// Result of a request to drain a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainOutcome {
    /// The node receives the request with its next heartbeat.
    Requested,
    /// The node is dead.
    Dead,
    /// Nodes of this role cannot be drained on request.
    NotSupported(Role),
    /// No node has this id, or it has restarted or deregistered since.
    NotFound,
}

impl<R> Clone for ClusterSnapshotCache<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Registry + std::fmt::Debug + 'static> ClusterSnapshotCache<R> {
    /// An empty cache in front of `registry`.
    pub fn new(registry: R) -> Self {
        let (state, query_running) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Inner { registry, state, query_running, finished_queries: watch::Sender::new(0) }))
    }

    /// Returns the latest snapshot, at most one second old if the registry answers at once. Waits
    /// up to two seconds for the first one, later up to 250 ms.
    pub async fn get(&self) -> CachedSnapshot {
        let mut finished_queries = self.0.finished_queries.subscribe();
        let timeout = {
            let state = self.state();
            match &state.latest {
                _ if state.queried_at.is_some_and(|at| at.elapsed() < MAX_AGE)
                    && !self.0.query_running.load(Ordering::Acquire) =>
                {
                    return state.cached();
                }
                // Longer than the query may take: this waits for its end.
                None if !state.registry_unreachable => 2 * QUERY_TIMEOUT,
                Some(_) if !state.registry_unreachable => STALE_WAIT_TIMEOUT,
                _ => Duration::ZERO,
            }
        };
        self.spawn_query();
        let _ = tokio::time::timeout(timeout, finished_queries.changed()).await;
        self.state().cached()
    }

    /// Removes a dead node. Waits for the registry, at most two seconds.
    ///
    /// # Errors
    /// If the registry fails or does not answer in time.
    pub async fn remove(&self, id: &str) -> Result<RemoveOutcome, RegistryError> {
        let removal = async {
            match self.0.registry.node(id).await? {
                None => Ok(RemoveOutcome::NotFound),
                Some(record) if record.alive => Ok(RemoveOutcome::Alive),
                Some(_) => self.0.registry.remove_node(id).await.map(|_| RemoveOutcome::Removed),
            }
        };
        let removal = tokio::time::timeout(CHANGE_TIMEOUT, removal)
            .await
            .unwrap_or_else(|_| Err(timeout_error("remove a node")))?;
        // The next caller must see the change.
        self.state().queried_at = None;
        Ok(removal)
    }

    /// Requests that an origin or an edge drains. Waits for the registry, at most two seconds.
    ///
    /// # Errors
    /// If the registry fails or does not answer in time.
    pub async fn drain(&self, id: &str) -> Result<DrainOutcome, RegistryError> {
        let query = async {
            let Some(record) = self.0.registry.node(id).await? else { return Ok(DrainOutcome::NotFound) };
            match record.node.role {
                role @ (Role::Standalone | Role::Registry) => Ok(DrainOutcome::NotSupported(role)),
                Role::Origin | Role::Edge if !record.alive => Ok(DrainOutcome::Dead),
                Role::Origin | Role::Edge => match self.0.registry.request_drain(&record.incarnation()).await? {
                    true => Ok(DrainOutcome::Requested),
                    // The node has restarted or deregistered in between.
                    false => Ok(DrainOutcome::NotFound),
                },
            }
        };
        let outcome = tokio::time::timeout(CHANGE_TIMEOUT, query)
            .await
            .unwrap_or_else(|_| Err(timeout_error("request a node to drain")))?;
        // The next caller must see the request.
        self.state().queried_at = None;
        Ok(outcome)
    }

    /// Spawns a query of the registry, unless one is running.
    fn spawn_query(&self) {
        if self.0.query_running.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        spawn_shared(async move {
            let query = async { tokio::try_join!(this.0.registry.nodes(), this.0.registry.streams()) };
            let answer = tokio::time::timeout(QUERY_TIMEOUT, query)
                .await
                .unwrap_or_else(|_| Err(timeout_error("list the cluster")));
            {
                let mut state = this.state();
                let now = Instant::now();
                state.queried_at = Some(now);
                if let Err(e) = &answer
                    && !state.registry_unreachable
                {
                    log::debug!(err:% = Chain(e); "registry could not list the cluster");
                }
                state.registry_unreachable = answer.is_err();
                if let Ok((nodes, streams)) = answer {
                    state.latest = Some((now, Arc::new(ClusterSnapshot { nodes, streams })));
                }
            }
            this.0.query_running.store(false, Ordering::Release);
            this.0.finished_queries.send_modify(|count| *count += 1);
        });
    }

    fn state(&self) -> MutexGuard<'_, CacheState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheState {
    fn cached(&self) -> CachedSnapshot {
        match &self.latest {
            Some((at, snapshot)) => CachedSnapshot {
                snapshot: Some(Arc::clone(snapshot)),
                age: at.elapsed(),
                registry_unreachable: self.registry_unreachable,
            },
            None => {
                CachedSnapshot { snapshot: None, age: Duration::ZERO, registry_unreachable: self.registry_unreachable }
            }
        }
    }
}

fn timeout_error(attempted: &str) -> RegistryError {
    RegistryError::Unreachable {
        attempted: attempted.to_owned(),
        servers: "of the registry".to_owned(),
        source: "no answer in time".into(),
    }
}

/// A snapshot is returned without a new query for this duration.
const MAX_AGE: Duration = Duration::from_secs(1);
/// For one query of the registry.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a caller waits for a newer snapshot if there is an older one.
const STALE_WAIT_TIMEOUT: Duration = Duration::from_millis(250);
/// For a change, including the lookup before it.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use headwater_api::config::{self, RegistryKind};
    use headwater_api::documents::NodeDocument;
    use headwater_registry::{Embedded, Nodes as _, Store, Timing};

    use super::*;

    struct TempFolder(std::path::PathBuf);

    impl TempFolder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("headwater-snapshot-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// A registry whose leases last `lease_ms`.
        fn store(&self, lease_ms: u64) -> Store {
            let timing = Timing { lease: Duration::from_millis(lease_ms), ..Timing::default() };
            Store::Embedded(Embedded::open_with(&self.0, timing).unwrap())
        }
    }

    impl Drop for TempFolder {
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

    async fn ids(cache: &ClusterSnapshotCache<Store>) -> Vec<String> {
        cache.get().await.snapshot.unwrap().nodes.iter().map(|n| n.node.id.clone()).collect()
    }

    #[tokio::test]
    async fn removed_dead_node_disappears_at_once_and_living_node_is_kept() {
        let folder = TempFolder::new("remove");
        let store = folder.store(200);
        register(&store, "dead").await;
        let mut dead = false;
        while !dead {
            tokio::task::yield_now().await;
            dead = !store.node("dead").await.unwrap().unwrap().alive;
        }
        register(&store, "alive").await;
        let cache = ClusterSnapshotCache::new(store);
        assert_eq!(ids(&cache).await, ["alive", "dead"]);
        assert_eq!(cache.remove("alive").await.unwrap(), RemoveOutcome::Alive);
        assert_eq!(cache.remove("dead").await.unwrap(), RemoveOutcome::Removed);
        assert_eq!(cache.remove("dead").await.unwrap(), RemoveOutcome::NotFound);
        assert_eq!(ids(&cache).await, ["alive"]);
    }

    #[tokio::test]
    async fn only_living_origins_and_edges_accept_a_drain_request() {
        let folder = TempFolder::new("drain");
        let store = folder.store(60_000);
        for (id, role) in [("edge", Role::Edge), ("alone", Role::Standalone), ("database", Role::Registry)] {
            store.register(&node(id, role), None).await.unwrap();
        }
        let cache = ClusterSnapshotCache::new(store);
        for (id, expected) in [
            ("edge", DrainOutcome::Requested),
            ("alone", DrainOutcome::NotSupported(Role::Standalone)),
            ("database", DrainOutcome::NotSupported(Role::Registry)),
            ("nobody", DrainOutcome::NotFound),
        ] {
            assert_eq!(cache.drain(id).await.unwrap(), expected, "{id}");
        }
        let snapshot = cache.get().await.snapshot.unwrap();
        let requested: Vec<_> =
            snapshot.nodes.iter().filter(|n| n.drain_requested).map(|n| n.node.id.as_str()).collect();
        assert_eq!(requested, ["edge"]);
    }

    #[tokio::test]
    async fn only_the_first_caller_waits_for_an_unreachable_registry() {
        let folder = TempFolder::new("away");
        let uri_file = folder.0.join("uri");
        // No server listens there.
        std::fs::write(&uri_file, "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300000").unwrap();
        let config = config::Registry { kind: RegistryKind::MongoDb, uri_file: Some(uri_file) };
        let cache = ClusterSnapshotCache::new(Store::open(&config, &folder.0).await.unwrap());
        let first = cache.get().await;
        assert!(first.registry_unreachable && first.snapshot.is_none());
        let started = Instant::now();
        for _ in 0..50 {
            assert!(cache.get().await.registry_unreachable);
        }
        assert!(started.elapsed() < 10 * QUERY_TIMEOUT, "{:?}", started.elapsed());
        assert!(cache.remove("x").await.is_err());
    }
}
