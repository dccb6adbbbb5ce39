//! Nodes: their leases are in memory, their registrations in the file.

use headwater_api::config::Role;
use headwater_api::documents::{BootEpoch, Heartbeat, NodeDocument, NodeIncarnation, NodeRecord};
use redb::TableDefinition;
use serde::{Deserialize, Serialize};

use super::Embedded;
use super::file::Table;
use crate::{DesiredState, Nodes, Peers, RegistryError};

/// The stored form of a registration.
#[derive(Debug, Serialize, Deserialize)]
struct StoredNode {
    node: NodeDocument,
    epoch: BootEpoch,
    at_ms: u64,
}

/// Adds the nodes that were registered before this process started.
pub(super) fn restore_leases(registry: &Embedded) -> Result<(), RegistryError> {
    for StoredNode { node, epoch, at_ms } in registry.read_all(NODES)? {
        registry.leases().restore(node, epoch, at_ms);
    }
    Ok(())
}

impl Nodes for Embedded {
    async fn register(
        &self,
        node: &NodeDocument,
        resumes: Option<BootEpoch>,
    ) -> Result<NodeIncarnation, RegistryError> {
        let at_ms = self.now_ms();
        let incarnation = self.leases().register(at_ms, node, resumes)?;
        self.put(NODES, &incarnation.node, &StoredNode { node: node.clone(), epoch: incarnation.epoch, at_ms })?;
        Ok(incarnation)
    }

    async fn heartbeat(
        &self,
        incarnation: &NodeIncarnation,
        heartbeat: &Heartbeat,
    ) -> Result<DesiredState, RegistryError> {
        self.leases().heartbeat(self.now_ms(), incarnation, heartbeat)
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, RegistryError> {
        Ok(self.leases().nodes(self.now_ms()))
    }

    async fn peers(&self, which: Peers<'_>) -> Result<Vec<NodeRecord>, RegistryError> {
        let is_selected = |record: &NodeRecord| match which {
            Peers::ById(ids) => ids.contains(&record.node.id),
            Peers::EdgesOf(group) => record.node.role == Role::Edge && record.node.group == group,
            Peers::Watching(name) => record.heartbeat.watched.iter().any(|stream| stream.name == *name),
        };
        let mut found: Vec<_> = self.leases().nodes(self.now_ms()).into_iter().filter(is_selected).collect();
        found.iter_mut().for_each(|record| record.heartbeat.watched.clear());
        Ok(found)
    }

    async fn node(&self, id: &str) -> Result<Option<NodeRecord>, RegistryError> {
        Ok(self.leases().node(self.now_ms(), id))
    }

    async fn remove_node(&self, id: &str) -> Result<bool, RegistryError> {
        self.remove(NODES, id)?;
        Ok(self.leases().remove_node(id))
    }

    async fn request_drain(&self, incarnation: &NodeIncarnation) -> Result<bool, RegistryError> {
        Ok(self.leases().request_drain(incarnation))
    }

    async fn deregister(&self, incarnation: &NodeIncarnation) -> Result<bool, RegistryError> {
        let removed = self.leases().deregister(incarnation);
        if removed {
            self.remove(NODES, &incarnation.node)?;
        }
        Ok(removed)
    }
}

const NODES: Table = TableDefinition::new("nodes");
