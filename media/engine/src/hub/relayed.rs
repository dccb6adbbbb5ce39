//! The streams relayed from other nodes: all that a client of the cluster needs to know of the hub.

use std::collections::HashMap;
use std::sync::Arc;

use headwater_api::StreamName;

use crate::hub::error::PublishError;
use crate::hub::limits::Limits;
use crate::hub::stream::{Producer, RELAY, Stream};
use crate::hub::stream_table::StreamTable;
use crate::runtime::wall_clock::WallClock;

/// The streams that this node relays from other nodes; clones share them.
#[derive(Debug, Clone)]
pub struct RelayedStreams {
    table: Arc<StreamTable>,
    history_segments: usize,
}

impl RelayedStreams {
    pub(super) fn new(limits: Limits, wall_clock: &WallClock) -> Self {
        Self { table: Arc::new(StreamTable::new(limits, wall_clock)), history_segments: limits.history_segments }
    }

    /// Publishes a stream relayed from another node. `generation` is the Unix time in milliseconds
    /// at which it was published there. The stream keeps finished segments for other nodes.
    ///
    /// # Errors
    /// Fails if the stream is already relayed, or the hub is full.
    pub fn publish(&self, name: &StreamName, generation: u64) -> Result<Producer, PublishError> {
        let producer = Producer::publish(&self.table, name, RELAY, Some(generation))?;
        producer.stream().keep_history(self.history_segments);
        Ok(producer)
    }

    pub(super) fn get(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.table.get(name)
    }

    pub(super) fn snapshot(&self) -> HashMap<StreamName, Arc<Stream>> {
        self.table.snapshot()
    }
}
