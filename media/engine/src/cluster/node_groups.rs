//! Node groups, such as regions: between two groups a stream is transferred once, to one edge of
//! the viewers' group, and from there to the other edges. Also checks whether a node is available.
//!
//! That edge is chosen by rendezvous hashing of the names of the stream and of the edges, so that
//! all nodes agree without messages. Edges are listed for streams of another group (those of this
//! node's group) and as witnesses (those of both groups); all other queries are by node id.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;

use headwater_api::StreamName;
use headwater_api::documents::NodeRecord;
use headwater_registry::{Peers, Registry};

use crate::cluster::member::Cluster;

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    /// The relays of the edge that pulls the stream for this node's group; `None` if this node must
    /// pull from the owner.
    pub(crate) async fn relays_of_group_edge(&self, name: &StreamName, owner: &str) -> Option<Vec<SocketAddr>> {
        let this_node = &self.0.identity.incarnation.node;
        let this = self.clone();
        let groups = self.0.peers.group_of_node.get([this_node, owner], move |ids| this.clone().query_groups(ids));
        let [Some(own_group), Some(owner_group)] = groups.await else { return None };
        if own_group == owner_group {
            return None;
        }
        let this = self.clone();
        let [edges] = self.0.peers.edges_of_group.get([&own_group], move |names| this.clone().query_edges(names)).await;
        fetching_edge(&edges?, this_node, name)
    }

    /// The edges of this node's group and of the group of `node`.
    pub(super) async fn edges_near(&self, node: &str) -> Vec<NodeRecord> {
        let this_node = &self.0.identity.incarnation.node;
        let this = self.clone();
        let groups = self.0.peers.group_of_node.get([this_node, node], move |ids| this.clone().query_groups(ids));
        let [own_group, other_group] = groups.await;
        let own_group = own_group.unwrap_or_default();
        let other_group = other_group.unwrap_or_else(|| own_group.clone());
        let this = self.clone();
        let query = move |names| this.clone().query_edges(names);
        let edges = self.0.peers.edges_of_group.get([&own_group, &other_group], query).await;
        let is_one_group = own_group == other_group;
        let lists = edges.iter().take(if is_one_group { 1 } else { 2 }).flatten();
        lists.flat_map(|edges| edges.iter().cloned()).collect()
    }

    /// True if the node drains, is unreachable or is not listed; false if the registry does not
    /// answer. Ends within a few seconds.
    pub async fn is_unavailable(&self, node: &str) -> bool {
        let this = self.clone();
        let [available] = self.0.peers.availability.get([node], move |ids| this.clone().query_availability(ids)).await;
        available == Some(false)
    }

    async fn query_groups(self, ids: Vec<String>) -> Option<HashMap<String, String>> {
        let found = self.0.registry.peers(Peers::ById(&ids)).await.ok()?;
        Some(found.into_iter().map(|n| (n.node.id, n.node.group)).collect())
    }

    async fn query_edges(self, groups: Vec<String>) -> Option<HashMap<String, Arc<Vec<NodeRecord>>>> {
        let mut all = HashMap::new();
        for group in groups {
            let edges = self.0.registry.peers(Peers::EdgesOf(&group)).await.ok()?;
            all.insert(group, Arc::new(edges));
        }
        Some(all)
    }

    async fn query_availability(self, ids: Vec<String>) -> Option<HashMap<String, bool>> {
        let found = self.0.registry.peers(Peers::ById(&ids)).await.ok()?;
        let is_available = |id: &str| found.iter().any(|n| n.node.id == id && n.alive && !n.heartbeat.draining);
        Some(ids.iter().map(|id| (id.clone(), is_available(id))).collect())
    }
}

/// The relays of the edge that pulls the stream for the group of `edges`; `None` if it is this
/// node, or there is none.
fn fetching_edge(edges: &[NodeRecord], this_node: &str, name: &StreamName) -> Option<Vec<SocketAddr>> {
    let is_eligible =
        |n: &&NodeRecord| n.node.id == this_node || (n.alive && !n.heartbeat.draining && !n.node.relay.is_empty());
    let chosen = edges.iter().filter(is_eligible).max_by_key(|n| {
        let mut hasher = DefaultHasher::new();
        (name.as_str(), n.node.id.as_str()).hash(&mut hasher);
        hasher.finish()
    })?;
    (chosen.node.id != this_node).then(|| chosen.node.relay.clone())
}

#[cfg(test)]
mod tests {
    use headwater_api::config::Role;
    use headwater_api::documents::{BootEpoch, Heartbeat, NodeDocument};

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
            drain_requested: false,
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
            let all: Vec<_> = (1..=4).map(|e| fetching_edge(&edges, &format!("e{e}"), &name(n))).collect();
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
        assert!((0..20).all(|n| fetching_edge(&nodes, "e1", &name(n)).is_none()));
        nodes[1].alive = true;
        nodes[1].heartbeat.draining = true;
        assert!((0..20).all(|n| fetching_edge(&nodes, "e1", &name(n)).is_none()));
    }
}
