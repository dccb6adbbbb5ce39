//! The cluster as people look at it: all nodes and all streams, as the registry said a moment ago.
//!
//! Nobody waits for a registry that is away: what it said last is shown, with its age. However many look, the registry is asked
//! once a second at most.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_api::config::Role;
use headwater_api::error::Chain;
use headwater_api::node::NodeRecord;
use headwater_api::stream::StreamRecord;
use headwater_registry::{Registry, RegistryError};
use tokio::sync::watch;

use crate::lanes::spawn_shared;
use tokio::time::Instant;

/// Looks at the cluster; clones share what they have seen.
#[derive(Debug)]
pub struct View<R>(Arc<Inner<R>>);

#[derive(Debug)]
struct Inner<R> {
    registry: R,
    known: Mutex<Known>,
    asking: AtomicBool,
    /// How often the registry was asked, whatever came of it.
    rounds: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    seen: Option<(Instant, Arc<Cluster>)>,
    asked: Option<Instant>,
    away: bool,
}

/// What there is, sorted by id and by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// All nodes, dead ones that are not yet forgotten included.
    pub nodes: Vec<NodeRecord>,
    /// All live streams that nodes have claimed; a node with a registry of its own claims none.
    pub streams: Vec<StreamRecord>,
}

/// What is known, and how old it is.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `None` if the registry never answered.
    pub cluster: Option<Arc<Cluster>>,
    /// Since the registry said so.
    pub age: Duration,
    /// True if the registry did not answer when it was asked last.
    pub away: bool,
}

/// What became of a node that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// It lives, and so would be back with its next heartbeat.
    Alive,
    /// There is none of this id.
    Unknown,
}

/// What became of the wish that a node drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainWish {
    /// The node will hear it with its next heartbeat.
    Left,
    /// The node is dead, and hears nothing.
    Dead,
    /// A node of this role has nobody to hand over to, or another way to end.
    OfRole(Role),
    /// There is none of this id.
    Unknown,
}

impl<R> Clone for View<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Registry + std::fmt::Debug + 'static> View<R> {
    /// Has seen nothing yet.
    pub fn new(registry: R) -> Self {
        let (known, asking) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Inner { registry, known, asking, rounds: watch::Sender::new(0) }))
    }

    /// The cluster, a second old at most if the registry answers at once.
    pub async fn look(&self) -> Seen {
        let mut rounds = self.0.rounds.subscribe();
        let patience = {
            let known = self.known();
            match &known.seen {
                _ if known.asked.is_some_and(|at| at.elapsed() < FRESH) && !self.0.asking.load(Ordering::Acquire) => {
                    return known.seen();
                }
                // Longer than the question may take: its end is what is waited for.
                None if !known.away => 2 * ASK,
                Some(_) if !known.away => WAIT,
                _ => Duration::ZERO,
            }
        };
        self.ask();
        let _ = tokio::time::timeout(patience, rounds.changed()).await;
        self.known().seen()
    }

    /// Removes a node that is dead. Waits for the registry, two seconds at most.
    ///
    /// # Errors
    /// If the registry does not do it in time.
    pub async fn remove(&self, id: &str) -> Result<Removal, RegistryError> {
        let removal = async {
            match self.0.registry.node(id).await? {
                None => Ok(Removal::Unknown),
                Some(record) if record.alive => Ok(Removal::Alive),
                Some(_) => self.0.registry.remove_node(id).await.map(|_| Removal::Removed),
            }
        };
        let removal = tokio::time::timeout(CHANGE, removal).await.unwrap_or_else(|_| Err(late("remove a node")))?;
        // Who looks next sees it gone.
        self.known().asked = None;
        Ok(removal)
    }

    /// Asks an origin or an edge to drain. Waits for the registry, two seconds at most.
    ///
    /// # Errors
    /// If the registry does not do it in time.
    pub async fn drain(&self, id: &str) -> Result<DrainWish, RegistryError> {
        let asking = async {
            let Some(record) = self.0.registry.node(id).await? else { return Ok(DrainWish::Unknown) };
            match record.node.role {
                role @ (Role::Standalone | Role::Registry) => Ok(DrainWish::OfRole(role)),
                Role::Origin | Role::Edge if !record.alive => Ok(DrainWish::Dead),
                Role::Origin | Role::Edge => match self.0.registry.ask_to_drain(&record.life()).await? {
                    true => Ok(DrainWish::Left),
                    // Another life has begun, or it has left, in between.
                    false => Ok(DrainWish::Unknown),
                },
            }
        };
        let asked = tokio::time::timeout(CHANGE, asking).await.unwrap_or_else(|_| Err(late("ask a node to drain")))?;
        // Who looks next sees it.
        self.known().asked = None;
        Ok(asked)
    }

    /// Asks the registry, unless somebody does already.
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
                    log::debug!(err:% = Chain(e); "registry does not show the cluster");
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

/// What was seen is good for so long.
const FRESH: Duration = Duration::from_secs(1);
/// For one answer of the registry.
const ASK: Duration = Duration::from_secs(1);
/// How long somebody waits for news who could be shown something older.
const WAIT: Duration = Duration::from_millis(250);
/// For a change, with the look before it.
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
    async fn a_dead_node_can_be_removed_and_is_seen_gone_at_once_and_a_living_one_stays() {
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
    async fn origins_and_edges_that_live_can_be_asked_to_drain_and_no_others() {
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
    async fn a_registry_that_is_away_is_waited_for_once_and_then_not_again() {
        let folder = Folder::new("away");
        let uri_file = folder.0.join("uri");
        // Nobody listens there.
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
