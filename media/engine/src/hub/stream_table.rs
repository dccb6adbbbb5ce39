//! A table of live streams by name, and the entry that removes a stream when its producer is
//! dropped.
//!
//! The directory inserts and looks up. Must not know producers or why a stream is in the table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use headwater_api::StreamName;

use crate::hub::error::PublishError;
use crate::hub::limits::Limits;
use crate::hub::stream::Stream;
use crate::runtime::wall_clock::WallClock;
use crate::runtime::worker_pool::WorkerAffinity;

/// Live streams by name.
#[derive(Debug)]
pub(super) struct StreamTable {
    limits: Limits,
    wall_clock: WallClock,
    streams: Mutex<HashMap<StreamName, Arc<Stream>>>,
}

impl StreamTable {
    pub(super) fn new(limits: Limits, wall_clock: &WallClock) -> Self {
        Self { limits, wall_clock: wall_clock.clone(), streams: Mutex::default() }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Inserts a new stream, with affinity to the current worker. `generation` is set if the stream
    /// is published on another node.
    ///
    /// # Errors
    /// Fails if the name is in use or the table is full.
    pub(super) fn insert(
        &self,
        name: &StreamName,
        protocol: &'static str,
        generation: Option<u64>,
    ) -> Result<Arc<Stream>, PublishError> {
        let Limits { max_streams, depth_frames, depth_bytes, .. } = self.limits;
        let mut streams = self.lock();
        if streams.contains_key(name) {
            return Err(PublishError::AlreadyLive(name.clone()));
        }
        if streams.len() >= max_streams {
            return Err(PublishError::TooManyStreams { limit: max_streams });
        }
        let (affinity, depth) = (WorkerAffinity::current(), (depth_frames, depth_bytes));
        let stream = Arc::new(Stream::new(name.clone(), affinity, protocol, depth, &self.wall_clock, generation));
        streams.insert(name.clone(), Arc::clone(&stream));
        Ok(stream)
    }

    pub(super) fn get(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.lock().get(name).cloned()
    }

    /// Returns a copy of the table.
    pub(super) fn snapshot(&self) -> HashMap<StreamName, Arc<Stream>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, Arc<Stream>>> {
        // Every change under this lock is a single step.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Identifies a stream in its table.
#[derive(Debug)]
pub(super) struct TableEntry {
    table: Weak<StreamTable>,
    name: StreamName,
    instance_id: u64,
}

impl TableEntry {
    pub(super) fn new(table: &Arc<StreamTable>, stream: &Stream) -> Self {
        Self { table: Arc::downgrade(table), name: stream.name().clone(), instance_id: stream.instance_id() }
    }

    /// Removes the stream from its table, unless another stream has taken its name.
    pub(super) fn remove(&self) {
        let Some(table) = self.table.upgrade() else { return };
        let mut streams = table.lock();
        if streams.get(&self.name).is_some_and(|s| s.instance_id() == self.instance_id) {
            streams.remove(&self.name);
        }
    }
}
