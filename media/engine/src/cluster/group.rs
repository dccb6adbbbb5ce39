//! Node groups, such as regions: between two of them a stream travels once, to one edge of the viewers' group, and from
//! there to the others.
//!
//! Which edge it is follows from the names of the stream and of the edges (rendezvous hashing), so that all agree without
//! talking.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::config::Role;
use headwater_api::node::NodeRecord;
use headwater_registry::Registry;
use tokio::time::Instant;

use super::member::Cluster;

/// The nodes, as they were a moment ago.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<Option<(Instant, Arc<Vec<NodeRecord>>)>>);

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    /// The relays of the edge of our group that fetches the stream for the group; `None` if we are to go to the owner.
    pub(super) async fn tier(&self, name: &StreamName, owner: &str) -> Option<Vec<SocketAddr>> {
        let nodes = self.nodes().await?;
        via(&nodes, &self.0.identity.life.node, owner, name)
    }

    /// True if the node takes its leave, is silent or is not listed any more; false if nothing is known.
    pub async fn is_leaving(&self, node: &str) -> bool {
        let Some(nodes) = self.nodes_within(LEAVING).await else { return false };
        !nodes.iter().any(|n| n.node.id == node && n.alive && !n.heartbeat.draining)
    }

    async fn nodes(&self) -> Option<Arc<Vec<NodeRecord>>> {
        self.nodes_within(FRESH).await
    }

    async fn nodes_within(&self, fresh: Duration) -> Option<Arc<Vec<NodeRecord>>> {
        let known = self.0.groups.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, nodes)) = &known
            && at.elapsed() < fresh
        {
            return Some(Arc::clone(nodes));
        }
        match tokio::time::timeout(ASK, self.0.registry.nodes()).await {
            Ok(Ok(nodes)) => {
                let nodes = Arc::new(nodes);
                let known = (Instant::now(), Arc::clone(&nodes));
                *self.0.groups.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
                Some(nodes)
            }
            _ => known.map(|(_, nodes)| nodes),
        }
    }
}

fn via(nodes: &[NodeRecord], us: &str, owner: &str, name: &StreamName) -> Option<Vec<SocketAddr>> {
    let group = |id: &str| nodes.iter().find(|n| n.node.id == id).map(|n| n.node.group.as_str());
    let (ours, theirs) = (group(us)?, group(owner)?);
    if ours == theirs {
        return None;
    }
    let fit = |n: &&NodeRecord| {
        n.node.group == ours
            && n.node.role == Role::Edge
            && (n.node.id == us || (n.alive && !n.heartbeat.draining && !n.node.relay.is_empty()))
    };
    let chosen = nodes.iter().filter(fit).max_by_key(|n| {
        let mut hasher = DefaultHasher::new();
        (name.as_str(), n.node.id.as_str()).hash(&mut hasher);
        hasher.finish()
    })?;
    (chosen.node.id != us).then(|| chosen.node.relay.clone())
}

const FRESH: Duration = Duration::from_secs(5);
/// Pages must hear in time that their node takes its leave.
const LEAVING: Duration = Duration::from_secs(2);
const ASK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
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
        }
    }

    fn name(n: usize) -> StreamName {
        StreamName::new("live", &format!("s{n}")).unwrap()
    }

    #[test]
    fn within_a_group_everybody_goes_to_the_owner() {
        let nodes = [node("o1", Role::Origin, "west"), node("e1", Role::Edge, "west"), node("e2", Role::Edge, "west")];
        assert_eq!(via(&nodes, "e1", "o1", &name(1)), None);
    }

    #[test]
    fn between_groups_all_edges_agree_on_one_that_fetches_each_stream() {
        let mut nodes = vec![node("o1", Role::Origin, "west")];
        nodes.extend((1..=4).map(|n| node(&format!("e{n}"), Role::Edge, "east")));
        let mut chosen = std::collections::BTreeSet::new();
        for n in 0..50 {
            let all: Vec<_> = (1..=4).map(|e| via(&nodes, &format!("e{e}"), "o1", &name(n))).collect();
            assert_eq!(all.iter().filter(|via| via.is_none()).count(), 1, "one goes itself");
            let others: std::collections::BTreeSet<_> = all.into_iter().flatten().collect();
            assert_eq!(others.len(), 1);
            chosen.extend(others);
        }
        assert_eq!(chosen.len(), 4, "the load is spread");
    }

    #[test]
    fn an_edge_that_is_dead_or_drains_fetches_nothing_for_others() {
        let mut nodes =
            vec![node("o1", Role::Origin, "west"), node("e1", Role::Edge, "east"), node("e2", Role::Edge, "east")];
        nodes[2].alive = false;
        assert!((0..20).all(|n| via(&nodes, "e1", "o1", &name(n)).is_none()));
        nodes[2].alive = true;
        nodes[2].heartbeat.draining = true;
        assert!((0..20).all(|n| via(&nodes, "e1", "o1", &name(n)).is_none()));
    }
}
