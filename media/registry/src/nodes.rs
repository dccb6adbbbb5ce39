//! Nodes: registration, heartbeats, and requests by operators.

use std::future::Future;

use headwater_api::StreamName;
use headwater_api::documents::{BootEpoch, Heartbeat, NodeDocument, NodeIncarnation, NodeRecord};

use crate::RegistryError;

/// The nodes of a registry.
pub trait Nodes: Send + Sync {
    /// Writes a node and starts its lease.
    ///
    /// With `resumes: None` a new incarnation begins, with a greater epoch than any incarnation of
    /// this id before; the next call of the previous incarnation fails. With the epoch of the
    /// current incarnation, its document is written again: after it was lost, or because its
    /// contents have changed.
    ///
    /// # Errors
    /// [`RegistryError::Superseded`] if a later incarnation than `resumes` has registered.
    fn register(
        &self,
        node: &NodeDocument,
        resumes: Option<BootEpoch>,
    ) -> impl Future<Output = Result<NodeIncarnation, RegistryError>> + Send;

    /// Renews a node's lease, stores the heartbeat, and returns the state that operators want the
    /// node to be in. Called every [`Timing::heartbeat_interval`](crate::Timing::heartbeat_interval).
    ///
    /// # Errors
    /// [`RegistryError::NotRegistered`] if the node's document does not exist: register again, with
    /// the same epoch. [`RegistryError::Superseded`] if a later incarnation has registered: shut
    /// down.
    fn heartbeat(
        &self,
        incarnation: &NodeIncarnation,
        heartbeat: &Heartbeat,
    ) -> impl Future<Output = Result<DesiredState, RegistryError>> + Send;

    /// All nodes, sorted by id, including dead ones that have not expired.
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeRecord>, RegistryError>> + Send;

    /// Selected nodes, without their viewer counts by stream: what other nodes need for routing.
    fn peers(&self, which: Peers<'_>) -> impl Future<Output = Result<Vec<NodeRecord>, RegistryError>> + Send;

    /// The node with this id, unless it has expired.
    fn node(&self, id: &str) -> impl Future<Output = Result<Option<NodeRecord>, RegistryError>> + Send;

    /// Removes a node on behalf of an operator. Returns false if it did not exist. A node that
    /// still runs registers again with its next heartbeat.
    fn remove_node(&self, id: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Requests on behalf of an operator that this incarnation of a node drains. Returns false if
    /// there is no such incarnation. The node receives the request with its next heartbeat; its
    /// next incarnation starts without it.
    fn request_drain(&self, incarnation: &NodeIncarnation) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Removes a node that shuts down. Returns false, and keeps the node, if a later incarnation
    /// exists.
    fn deregister(&self, incarnation: &NodeIncarnation) -> impl Future<Output = Result<bool, RegistryError>> + Send;
}

/// The state that operators want a node to be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DesiredState {
    /// Accept work.
    Serve,
    /// Drain, then shut down.
    Drain,
}

/// A selection of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers<'a> {
    /// The nodes with these ids, looked up by primary key.
    ById(&'a [String]),
    /// The edges of a node group.
    EdgesOf(&'a str),
    /// The nodes whose last heartbeat lists viewers of this stream.
    Watching(&'a StreamName),
}
