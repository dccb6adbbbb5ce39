//! Node groups, such as regions: between two groups a stream is transferred once, to one edge of the
//! viewers' group, and from there to the other edges. Also tells whether a node is available.
//!
//! That edge is chosen by rendezvous hashing of the names of the stream and of the edges, so that all
//! nodes agree without messages. Edges are listed only for streams of another group, and only those
//! of this node's group; all other queries are by node id.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::node::NodeRecord;
use headwater_registry::{Peers, Registry};

use crate::cluster::member::Cluster;
use crate::cluster::query_cache::{Kept, Patience};

/// Cached answers about other nodes.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Group name, by node id.
    groups: Kept<String>,
    /// Edges, by group name.
    edges: Kept<Arc<Vec<NodeRecord>>>,
    /// By node id: true if the node is listed, alive and not draining.
    staying: Kept<bool>,
}

impl Default for Groups {
    fn default() -> Self {
        Self { groups: Kept::new(GROUPS), edges: Kept::new(EDGES), staying: Kept::new(STAYING) }
    }
}

impl Groups {
    /// Invalidates the edges after a source was lost: it may have been the group's edge.
    pub(crate) fn doubt(&self) {
        self.edges.doubt();
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    /// The relays of the edge that pulls the stream for this node's group; `None` if this node must
    /// pull from the owner.
    pub(crate) async fn tier(&self, name: &StreamName, owner: &str) -> Option<Vec<SocketAddr>> {
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

    /// True if the node drains, is unreachable or is not listed; false if the registry does not
    /// answer. Ends within a few seconds.
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

/// The relays of the edge that pulls the stream for the group of `edges`; `None` if it is this node,
/// or there is none.
fn via(edges: &[NodeRecord], us: &str, name: &StreamName) -> Option<Vec<SocketAddr>> {
    let fit = |n: &&NodeRecord| n.node.id == us || (n.alive && !n.heartbeat.draining && !n.node.relay.is_empty());
    let chosen = edges.iter().filter(fit).max_by_key(|n| {
        let mut hasher = DefaultHasher::new();
        (name.as_str(), n.node.id.as_str()).hash(&mut hasher);
        hasher.finish()
    })?;
    (chosen.node.id != us).then(|| chosen.node.relay.clone())
}

/// A node's group is a tag, which hardly ever changes.
const GROUPS: Patience = Patience { fresh: Duration::from_secs(60), pause: Duration::ZERO };
/// Invalidated earlier when a source was lost.
const EDGES: Patience = Patience { fresh: Duration::from_secs(15), pause: Duration::from_secs(1) };
/// Pages must learn soon that their node drains. Clients choose the node ids, so the rate of queries
/// is limited.
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
    fn all_edges_agree_on_the_one_that_pulls_a_stream_for_the_group() {
        let edges: Vec<_> = (1..=4).map(|n| node(&format!("e{n}"), Role::Edge, "east")).collect();
        let mut chosen = std::collections::BTreeSet::new();
        for n in 0..50 {
            let all: Vec<_> = (1..=4).map(|e| via(&edges, &format!("e{e}"), &name(n))).collect();
            assert_eq!(all.iter().filter(|via| via.is_none()).count(), 1, "one edge pulls from the owner");
            let others: std::collections::BTreeSet<_> = all.into_iter().flatten().collect();
            assert_eq!(others.len(), 1);
            chosen.extend(others);
        }
        assert_eq!(chosen.len(), 4, "streams are distributed over all edges");
    }

    #[test]
    fn dead_or_draining_edge_is_not_chosen_to_pull_for_its_group() {
        let mut nodes = [node("e1", Role::Edge, "east"), node("e2", Role::Edge, "east")];
        nodes[1].alive = false;
        assert!((0..20).all(|n| via(&nodes, "e1", &name(n)).is_none()));
        nodes[1].alive = true;
        nodes[1].heartbeat.draining = true;
        assert!((0..20).all(|n| via(&nodes, "e1", &name(n)).is_none()));
    }
}
