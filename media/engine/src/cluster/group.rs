//! Node groups, such as regions: between two of them a stream travels once, to one edge of the viewers' group, and from
//! there to the others. And whether a node takes its leave.
//!
//! Which edge it is follows from the names of the stream and of the edges (rendezvous hashing), so that all agree without
//! talking. Edges are listed only between groups, and only those of our own; in all else the registry is asked by id.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::node::NodeRecord;
use headwater_registry::{Peers, Registry};

use super::kept::{Kept, Patience};
use super::member::Cluster;

/// What is known of other nodes.
#[derive(Debug)]
pub(super) struct Groups {
    /// Names of groups, by node.
    groups: Kept<String>,
    /// Edges, by group.
    edges: Kept<Arc<Vec<NodeRecord>>>,
    /// True of nodes that are listed, alive and stay.
    staying: Kept<bool>,
}

impl Default for Groups {
    fn default() -> Self {
        Self { groups: Kept::new(GROUPS), edges: Kept::new(EDGES), staying: Kept::new(STAYING) }
    }
}

impl Groups {
    /// A source was lost: it may be the edge that fetched for the group.
    pub(super) fn doubt(&self) {
        self.edges.doubt();
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    /// The relays of the edge of our group that fetches the stream for the group; `None` if we are to go to the owner.
    pub(super) async fn tier(&self, name: &StreamName, owner: &str) -> Option<Vec<SocketAddr>> {
        let us = &self.0.identity.life.node;
        let ask = self.clone();
        let groups = self.0.groups.groups.of([us, owner], move |ids| ask.clone().group_names(ids));
        let [Some(ours), Some(theirs)] = groups.await else { return None };
        if ours == theirs {
            return None;
        }
        let ask = self.clone();
        let [edges] = self.0.groups.edges.of([&ours], move |names| ask.clone().edges(names)).await;
        via(&edges?, us, name)
    }

    /// True if the node takes its leave, is silent or is not listed any more; false if nothing is known. Ends within a few
    /// seconds.
    pub async fn is_leaving(&self, node: &str) -> bool {
        let ask = self.clone();
        let [stays] = self.0.groups.staying.of([node], move |ids| ask.clone().stays(ids)).await;
        stays == Some(false)
    }

    async fn group_names(self, ids: Vec<String>) -> Option<HashMap<String, String>> {
        let found = self.0.registry.peers(Peers::These(&ids)).await.ok()?;
        Some(found.into_iter().map(|n| (n.node.id, n.node.group)).collect())
    }

    async fn edges(self, groups: Vec<String>) -> Option<HashMap<String, Arc<Vec<NodeRecord>>>> {
        let mut all = HashMap::new();
        for group in groups {
            let edges = self.0.registry.peers(Peers::EdgesOf(&group)).await.ok()?;
            all.insert(group, Arc::new(edges));
        }
        Some(all)
    }

    async fn stays(self, ids: Vec<String>) -> Option<HashMap<String, bool>> {
        let found = self.0.registry.peers(Peers::These(&ids)).await.ok()?;
        let stays = |id: &str| found.iter().any(|n| n.node.id == id && n.alive && !n.heartbeat.draining);
        Some(ids.iter().map(|id| (id.clone(), stays(id))).collect())
    }
}

/// Which of the edges of our group fetches the stream; `None` if it is this node, or there is none.
fn via(edges: &[NodeRecord], us: &str, name: &StreamName) -> Option<Vec<SocketAddr>> {
    let fit = |n: &&NodeRecord| n.node.id == us || (n.alive && !n.heartbeat.draining && !n.node.relay.is_empty());
    let chosen = edges.iter().filter(fit).max_by_key(|n| {
        let mut hasher = DefaultHasher::new();
        (name.as_str(), n.node.id.as_str()).hash(&mut hasher);
        hasher.finish()
    })?;
    (chosen.node.id != us).then(|| chosen.node.relay.clone())
}

/// A node's group is its tag, which hardly ever changes.
const GROUPS: Patience = Patience { fresh: Duration::from_secs(60), pause: Duration::ZERO };
/// Sooner when a source was lost.
const EDGES: Patience = Patience { fresh: Duration::from_secs(15), pause: Duration::from_secs(1) };
/// Pages must hear in time that their node takes its leave. They ask of many nodes, and made-up ones: hence the pause.
const STAYING: Patience = Patience { fresh: Duration::from_secs(2), pause: Duration::from_secs(1) };

#[cfg(test)]
mod tests {
    use headwater_api::config::Role;
    use headwater_api::node::{BootEpoch, Heartbeat, NodeDocument};

    use super::*;

    fn node(id: &str, role: Role, group: &str) -> NodeRecord {
        NodeRecord {
            node: NodeDocument {
                id: id.to_owned(),
                role,
                addresses: Vec::new(),
                relay: vec![SocketAddr::from(([10, 0, 0, id.as_bytes()[1] - b'0'], 5000))],
                url: None,
                group: group.to_owned(),
                zone: String::new(),
                instance_type: String::new(),
                image: String::new(),
                version: String::new(),
                started_at_ms: 0,
            },
            boot_epoch: BootEpoch(1),
            heartbeat: Heartbeat::default(),
            age_ms: 0,
            silent_ms: 0,
            alive: true,
            drain_asked: false,
        }
    }

    fn name(n: usize) -> StreamName {
        StreamName::new("live", &format!("s{n}")).unwrap()
    }

    #[test]
    fn between_groups_all_edges_agree_on_one_that_fetches_each_stream() {
        let edges: Vec<_> = (1..=4).map(|n| node(&format!("e{n}"), Role::Edge, "east")).collect();
        let mut chosen = std::collections::BTreeSet::new();
        for n in 0..50 {
            let all: Vec<_> = (1..=4).map(|e| via(&edges, &format!("e{e}"), &name(n))).collect();
            assert_eq!(all.iter().filter(|via| via.is_none()).count(), 1, "one goes itself");
            let others: std::collections::BTreeSet<_> = all.into_iter().flatten().collect();
            assert_eq!(others.len(), 1);
            chosen.extend(others);
        }
        assert_eq!(chosen.len(), 4, "the load is spread");
    }

    #[test]
    fn an_edge_that_is_dead_or_drains_fetches_nothing_for_others() {
        let mut nodes = [node("e1", Role::Edge, "east"), node("e2", Role::Edge, "east")];
        nodes[1].alive = false;
        assert!((0..20).all(|n| via(&nodes, "e1", &name(n)).is_none()));
        nodes[1].alive = true;
        nodes[1].heartbeat.draining = true;
        assert!((0..20).all(|n| via(&nodes, "e1", &name(n)).is_none()));
    }
}
