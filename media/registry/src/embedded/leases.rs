//! Leases as a value: the nodes and streams of a registry that is one process.
//!
//! Times are milliseconds of one clock that the caller reads. Must not know where documents are
//! stored.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::documents::{
    BootEpoch, Claim, Heartbeat, MAX_WATCHED, NodeDocument, NodeIncarnation, NodeRecord, StreamOffer, StreamRecord,
};

use crate::{DesiredState, RegistryError, Timing};

/// All nodes and streams.
#[derive(Debug)]
pub(super) struct Leases {
    timing: Timing,
    nodes: BTreeMap<String, NodeLease>,
    streams: BTreeMap<StreamName, StreamLease>,
    /// The greatest epoch of any node, so that the next incarnation of a removed node gets a
    /// greater one even within the same millisecond.
    latest_epoch: BootEpoch,
}

#[derive(Debug)]
struct NodeLease {
    document: NodeDocument,
    epoch: BootEpoch,
    heartbeat: Heartbeat,
    registered_ms: u64,
    renewed_ms: u64,
    desired: DesiredState,
}

#[derive(Debug)]
struct StreamLease {
    /// `None` once the owner has released the stream.
    owner: Option<NodeIncarnation>,
    epoch: u64,
    offer: StreamOffer,
    claimed_ms: u64,
    renewed_ms: u64,
}

impl Leases {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, nodes: BTreeMap::new(), streams: BTreeMap::new(), latest_epoch: BootEpoch(0) }
    }

    /// Adds a node that was registered before this process started.
    pub(super) fn restore(&mut self, document: NodeDocument, epoch: BootEpoch, registered_ms: u64) {
        let id = document.id.clone();
        let (heartbeat, desired) = (Heartbeat::default(), DesiredState::Serve);
        self.latest_epoch = self.latest_epoch.max(epoch);
        let node = NodeLease { document, epoch, heartbeat, registered_ms, renewed_ms: registered_ms, desired };
        self.nodes.insert(id, node);
    }

    pub(super) fn register(
        &mut self,
        now_ms: u64,
        document: &NodeDocument,
        resumes: Option<BootEpoch>,
    ) -> Result<NodeIncarnation, RegistryError> {
        self.remove_expired(now_ms);
        let registered = self.nodes.get(&document.id);
        let epoch = match (resumes, registered) {
            (None, _) => BootEpoch(now_ms.max(self.latest_epoch.0 + 1)),
            (Some(this), Some(node)) if node.epoch > this => return Err(superseded(&document.id, this, node.epoch)),
            (Some(this), _) => this,
        };
        let same = registered.filter(|node| node.epoch == epoch);
        let (heartbeat, registered_ms, desired) = same
            .map_or((Heartbeat::default(), now_ms, DesiredState::Serve), |node| {
                (node.heartbeat.clone(), node.registered_ms, node.desired)
            });
        let document = document.clone();
        let incarnation = NodeIncarnation { node: document.id.clone(), epoch };
        let node = NodeLease { document, epoch, heartbeat, registered_ms, renewed_ms: now_ms, desired };
        self.nodes.insert(incarnation.node.clone(), node);
        self.latest_epoch = self.latest_epoch.max(epoch);
        Ok(incarnation)
    }

    pub(super) fn heartbeat(
        &mut self,
        now_ms: u64,
        incarnation: &NodeIncarnation,
        heartbeat: &Heartbeat,
    ) -> Result<DesiredState, RegistryError> {
        self.remove_expired(now_ms);
        match self.nodes.get_mut(&incarnation.node) {
            Some(node) if node.epoch == incarnation.epoch => {
                node.heartbeat = heartbeat.clone();
                node.heartbeat.watched.truncate(MAX_WATCHED);
                node.renewed_ms = now_ms;
                Ok(node.desired)
            }
            Some(node) if node.epoch > incarnation.epoch => {
                Err(superseded(&incarnation.node, incarnation.epoch, node.epoch))
            }
            _ => Err(RegistryError::NotRegistered { id: incarnation.node.clone() }),
        }
    }

    pub(super) fn nodes(&mut self, now_ms: u64) -> Vec<NodeRecord> {
        self.remove_expired(now_ms);
        self.nodes.values().map(|node| self.node_record(now_ms, node)).collect()
    }

    pub(super) fn node(&mut self, now_ms: u64, id: &str) -> Option<NodeRecord> {
        self.remove_expired(now_ms);
        self.nodes.get(id).map(|node| self.node_record(now_ms, node))
    }

    fn node_record(&self, now_ms: u64, node: &NodeLease) -> NodeRecord {
        let silent_ms = now_ms.saturating_sub(node.renewed_ms);
        NodeRecord {
            node: node.document.clone(),
            boot_epoch: node.epoch,
            heartbeat: node.heartbeat.clone(),
            age_ms: now_ms.saturating_sub(node.registered_ms),
            silent_ms,
            alive: silent_ms < as_millis(self.timing.lease),
            drain_requested: node.desired == DesiredState::Drain,
        }
    }

    pub(super) fn request_drain(&mut self, incarnation: &NodeIncarnation) -> bool {
        let found = self.nodes.get_mut(&incarnation.node).filter(|node| node.epoch == incarnation.epoch);
        found.map(|node| node.desired = DesiredState::Drain).is_some()
    }

    pub(super) fn remove_node(&mut self, id: &str) -> bool {
        self.nodes.remove(id).is_some()
    }

    pub(super) fn deregister(&mut self, incarnation: &NodeIncarnation) -> bool {
        let is_this = self.nodes.get(&incarnation.node).is_some_and(|node| node.epoch == incarnation.epoch);
        is_this && self.remove_node(&incarnation.node)
    }

    pub(super) fn claim(
        &mut self,
        now_ms: u64,
        owner: &NodeIncarnation,
        name: &StreamName,
        offer: &StreamOffer,
        resumes: Option<u64>,
    ) -> Result<Claim, RegistryError> {
        self.remove_expired(now_ms);
        let lease_ms = as_millis(self.timing.lease);
        let mut claimed_ms = now_ms;
        let epoch = match self.streams.get(name) {
            None => resumes.unwrap_or(now_ms),
            Some(stream) => {
                match &stream.owner {
                    Some(other) if !may_take_over(other, owner) && now_ms < stream.renewed_ms + lease_ms => {
                        return Err(RegistryError::Taken { name: name.clone(), owner: other.node.clone() });
                    }
                    _ => {}
                }
                let continues = resumes == Some(stream.epoch) && stream.owner.as_ref().is_none_or(|o| o == owner);
                if continues {
                    claimed_ms = stream.claimed_ms;
                    stream.epoch
                } else {
                    now_ms.max(stream.epoch + 1).max(resumes.map_or(0, |epoch| epoch + 1))
                }
            }
        };
        let (owner, offer) = (owner.clone(), offer.clone());
        let stream = StreamLease { owner: Some(owner.clone()), epoch, offer, claimed_ms, renewed_ms: now_ms };
        self.streams.insert(name.clone(), stream);
        Ok(Claim { name: name.clone(), owner, epoch })
    }

    pub(super) fn renew(&mut self, now_ms: u64, owner: &NodeIncarnation, held: &[Claim]) -> Vec<StreamName> {
        self.remove_expired(now_ms);
        let mut lost = Vec::new();
        for claim in held {
            match self.streams.get_mut(&claim.name) {
                Some(stream) if stream.owner.as_ref() == Some(owner) && stream.epoch == claim.epoch => {
                    stream.renewed_ms = now_ms;
                }
                _ => lost.push(claim.name.clone()),
            }
        }
        lost
    }

    pub(super) fn release(&mut self, now_ms: u64, claim: &Claim) -> bool {
        match self.streams.get_mut(&claim.name) {
            Some(stream) if stream.owner.as_ref() == Some(&claim.owner) && stream.epoch == claim.epoch => {
                stream.owner = None;
                stream.renewed_ms = now_ms;
                true
            }
            _ => false,
        }
    }

    pub(super) fn release_all(&mut self, now_ms: u64, owner: &NodeIncarnation) -> u64 {
        let mut released = 0;
        for stream in self.streams.values_mut().filter(|s| s.owner.as_ref() == Some(owner)) {
            stream.owner = None;
            stream.renewed_ms = now_ms;
            released += 1;
        }
        released
    }

    pub(super) fn stream(&self, now_ms: u64, name: &StreamName) -> Option<StreamRecord> {
        self.streams.get(name).and_then(|stream| self.stream_record(now_ms, name, stream))
    }

    pub(super) fn streams(&self, now_ms: u64) -> Vec<StreamRecord> {
        self.streams.iter().filter_map(|(name, stream)| self.stream_record(now_ms, name, stream)).collect()
    }

    /// `None` if the stream is not live.
    fn stream_record(&self, now_ms: u64, name: &StreamName, stream: &StreamLease) -> Option<StreamRecord> {
        let owner = stream.owner.clone()?;
        let lease_left_ms =
            (stream.renewed_ms + as_millis(self.timing.lease)).checked_sub(now_ms).filter(|left| *left > 0)?;
        Some(StreamRecord {
            claim: Claim { name: name.clone(), owner, epoch: stream.epoch },
            offer: stream.offer.clone(),
            age_ms: now_ms.saturating_sub(stream.claimed_ms),
            lease_left_ms,
        })
    }

    /// Removes nodes and streams whose retention is over.
    fn remove_expired(&mut self, now_ms: u64) {
        let lease_ms = as_millis(self.timing.lease);
        let (nodes_ms, streams_ms) = (as_millis(self.timing.node_retention), as_millis(self.timing.stream_retention));
        self.nodes.retain(|_, node| now_ms < node.renewed_ms + lease_ms + nodes_ms);
        self.streams.retain(|_, stream| now_ms < stream.renewed_ms + lease_ms + streams_ms);
    }
}

/// True if the claimant takes over the streams of `owner` without waiting for its lease: the same
/// node, in the same incarnation or a later one.
fn may_take_over(owner: &NodeIncarnation, claimant: &NodeIncarnation) -> bool {
    owner.node == claimant.node && owner.epoch <= claimant.epoch
}

fn superseded(id: &str, this: BootEpoch, registered: BootEpoch) -> RegistryError {
    RegistryError::Superseded { id: id.to_owned(), this, registered }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}
