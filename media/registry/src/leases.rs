//! Who holds what until when, as a value: the nodes and streams of a store that is one process.
//!
//! Times are milliseconds of one clock that the caller reads; nothing here waits. Must not know where documents are kept.

use std::collections::BTreeMap;

use headwater_api::StreamName;
use headwater_api::node::{BootEpoch, Heartbeat, Life, MAX_WATCHED, NodeDocument, NodeRecord};
use headwater_api::stream::{Claim, StreamOffer, StreamRecord};

use crate::{RegistryError, Timing, Wish};

/// All nodes and streams.
#[derive(Debug)]
pub(crate) struct Leases {
    timing: Timing,
    nodes: BTreeMap<String, Node>,
    streams: BTreeMap<StreamName, Stream>,
    /// The greatest epoch given to any node, so that a removed node's next life is a later one within the same millisecond.
    latest: BootEpoch,
}

#[derive(Debug)]
struct Node {
    document: NodeDocument,
    epoch: BootEpoch,
    heartbeat: Heartbeat,
    registered_ms: u64,
    heard_ms: u64,
    wish: Wish,
}

#[derive(Debug)]
struct Stream {
    /// None once the owner has let go.
    owner: Option<Life>,
    epoch: u64,
    offer: StreamOffer,
    claimed_ms: u64,
    renewed_ms: u64,
}

impl Leases {
    pub(crate) fn new(timing: Timing) -> Self {
        Self { timing, nodes: BTreeMap::new(), streams: BTreeMap::new(), latest: BootEpoch(0) }
    }

    /// Puts back a node that was registered before this process began.
    pub(crate) fn restore(&mut self, document: NodeDocument, epoch: BootEpoch, registered_ms: u64) {
        let id = document.id.clone();
        let heartbeat = Heartbeat::default();
        self.latest = self.latest.max(epoch);
        let node = Node { document, epoch, heartbeat, registered_ms, heard_ms: registered_ms, wish: Wish::Serve };
        self.nodes.insert(id, node);
    }

    pub(crate) fn register(
        &mut self,
        now_ms: u64,
        document: &NodeDocument,
        resumes: Option<BootEpoch>,
    ) -> Result<Life, RegistryError> {
        self.forget(now_ms);
        let known = self.nodes.get(&document.id);
        let epoch = match (resumes, known) {
            (None, _) => BootEpoch(now_ms.max(self.latest.0 + 1)),
            (Some(this), Some(node)) if node.epoch > this => return Err(superseded(&document.id, this, node.epoch)),
            (Some(this), _) => this,
        };
        let same = known.filter(|node| node.epoch == epoch);
        let (heartbeat, registered_ms, wish) = same.map_or((Heartbeat::default(), now_ms, Wish::Serve), |node| {
            (node.heartbeat.clone(), node.registered_ms, node.wish)
        });
        let node = Node { document: document.clone(), epoch, heartbeat, registered_ms, heard_ms: now_ms, wish };
        self.nodes.insert(document.id.clone(), node);
        self.latest = self.latest.max(epoch);
        Ok(Life { node: document.id.clone(), epoch })
    }

    pub(crate) fn heartbeat(&mut self, now_ms: u64, life: &Life, heartbeat: &Heartbeat) -> Result<Wish, RegistryError> {
        self.forget(now_ms);
        match self.nodes.get_mut(&life.node) {
            Some(node) if node.epoch == life.epoch => {
                node.heartbeat = heartbeat.clone();
                node.heartbeat.watched.truncate(MAX_WATCHED);
                node.heard_ms = now_ms;
                Ok(node.wish)
            }
            Some(node) if node.epoch > life.epoch => Err(superseded(&life.node, life.epoch, node.epoch)),
            _ => Err(RegistryError::NotRegistered { id: life.node.clone() }),
        }
    }

    pub(crate) fn nodes(&mut self, now_ms: u64) -> Vec<NodeRecord> {
        self.forget(now_ms);
        self.nodes.values().map(|node| self.record(now_ms, node)).collect()
    }

    pub(crate) fn node(&mut self, now_ms: u64, id: &str) -> Option<NodeRecord> {
        self.forget(now_ms);
        self.nodes.get(id).map(|node| self.record(now_ms, node))
    }

    fn record(&self, now_ms: u64, node: &Node) -> NodeRecord {
        let silent_ms = now_ms.saturating_sub(node.heard_ms);
        NodeRecord {
            node: node.document.clone(),
            boot_epoch: node.epoch,
            heartbeat: node.heartbeat.clone(),
            age_ms: now_ms.saturating_sub(node.registered_ms),
            silent_ms,
            alive: silent_ms < millis(self.timing.lease),
            drain_asked: node.wish == Wish::Drain,
        }
    }

    pub(crate) fn ask_to_drain(&mut self, life: &Life) -> bool {
        let found = self.nodes.get_mut(&life.node).filter(|node| node.epoch == life.epoch);
        found.map(|node| node.wish = Wish::Drain).is_some()
    }

    pub(crate) fn remove_node(&mut self, id: &str) -> bool {
        self.nodes.remove(id).is_some()
    }

    pub(crate) fn leave(&mut self, life: &Life) -> bool {
        let is_this = self.nodes.get(&life.node).is_some_and(|node| node.epoch == life.epoch);
        is_this && self.remove_node(&life.node)
    }

    pub(crate) fn claim(
        &mut self,
        now_ms: u64,
        owner: &Life,
        name: &StreamName,
        offer: &StreamOffer,
        resumes: Option<u64>,
    ) -> Result<Claim, RegistryError> {
        self.forget(now_ms);
        let lease_ms = millis(self.timing.lease);
        let before = self.streams.get(name);
        let mut claimed_ms = now_ms;
        let epoch = match before {
            None => resumes.unwrap_or(now_ms),
            Some(stream) => {
                match &stream.owner {
                    Some(other) if !yields(other, owner) && now_ms < stream.renewed_ms + lease_ms => {
                        return Err(RegistryError::Taken { name: name.clone(), owner: other.node.clone() });
                    }
                    _ => {}
                }
                let goes_on = resumes == Some(stream.epoch) && stream.owner.as_ref().is_none_or(|o| o == owner);
                if goes_on {
                    claimed_ms = stream.claimed_ms;
                    stream.epoch
                } else {
                    now_ms.max(stream.epoch + 1).max(resumes.map_or(0, |epoch| epoch + 1))
                }
            }
        };
        let stream = Stream { owner: Some(owner.clone()), epoch, offer: offer.clone(), claimed_ms, renewed_ms: now_ms };
        self.streams.insert(name.clone(), stream);
        Ok(Claim { name: name.clone(), owner: owner.clone(), epoch })
    }

    pub(crate) fn renew(&mut self, now_ms: u64, owner: &Life, held: &[Claim]) -> Vec<StreamName> {
        self.forget(now_ms);
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

    pub(crate) fn release(&mut self, now_ms: u64, claim: &Claim) -> bool {
        match self.streams.get_mut(&claim.name) {
            Some(stream) if stream.owner.as_ref() == Some(&claim.owner) && stream.epoch == claim.epoch => {
                stream.owner = None;
                stream.renewed_ms = now_ms;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn release_all(&mut self, now_ms: u64, owner: &Life) -> u64 {
        let mut released = 0;
        for stream in self.streams.values_mut().filter(|s| s.owner.as_ref() == Some(owner)) {
            stream.owner = None;
            stream.renewed_ms = now_ms;
            released += 1;
        }
        released
    }

    pub(crate) fn stream(&self, now_ms: u64, name: &StreamName) -> Option<StreamRecord> {
        self.streams.get(name).and_then(|stream| self.live(now_ms, name, stream))
    }

    pub(crate) fn streams(&self, now_ms: u64) -> Vec<StreamRecord> {
        self.streams.iter().filter_map(|(name, stream)| self.live(now_ms, name, stream)).collect()
    }

    fn live(&self, now_ms: u64, name: &StreamName, stream: &Stream) -> Option<StreamRecord> {
        let owner = stream.owner.clone()?;
        let lease_left_ms =
            (stream.renewed_ms + millis(self.timing.lease)).checked_sub(now_ms).filter(|left| *left > 0)?;
        Some(StreamRecord {
            claim: Claim { name: name.clone(), owner, epoch: stream.epoch },
            offer: stream.offer.clone(),
            age_ms: now_ms.saturating_sub(stream.claimed_ms),
            lease_left_ms,
        })
    }

    /// Drops what has been dead for long enough.
    fn forget(&mut self, now_ms: u64) {
        let lease_ms = millis(self.timing.lease);
        let (nodes_ms, streams_ms) = (millis(self.timing.keep_nodes), millis(self.timing.keep_streams));
        self.nodes.retain(|_, node| now_ms < node.heard_ms + lease_ms + nodes_ms);
        self.streams.retain(|_, stream| now_ms < stream.renewed_ms + lease_ms + streams_ms);
    }
}

/// True if what `holder` holds goes to `claimant` without waiting: the same node, in the same life or a later one.
fn yields(holder: &Life, claimant: &Life) -> bool {
    holder.node == claimant.node && holder.epoch <= claimant.epoch
}

fn superseded(id: &str, this: BootEpoch, registered: BootEpoch) -> RegistryError {
    RegistryError::Superseded { id: id.to_owned(), this, registered }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}
