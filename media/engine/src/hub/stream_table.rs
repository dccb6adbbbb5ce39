//! A table of live streams by name, and the entry that removes a stream when its producer is
//! dropped.
//!
//! The directory inserts and looks up. Must not know producers or why a stream is in the table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use headwater_api::StreamName;

use crate::hub::error::PublishError;
use crate::hub::stream::Stream;

/// Live streams by name.
#[derive(Debug, Default)]
pub(super) struct StreamTable(Mutex<HashMap<StreamName, Arc<Stream>>>);

impl StreamTable {
    /// Inserts a new stream. `create` runs under a lock, so it must not wait.
    ///
    /// # Errors
    /// Fails if the name is in use or the table has `max_streams`.
    pub(super) fn insert(
        &self,
        name: &StreamName,
        max_streams: usize,
        create: impl FnOnce() -> Stream,
    ) -> Result<Arc<Stream>, PublishError> {
        let mut streams = self.lock();
        if streams.contains_key(name) {
            return Err(PublishError::AlreadyLive(name.clone()));
        }
        if streams.len() >= max_streams {
            return Err(PublishError::TooManyStreams { limit: max_streams });
        }
        let stream = Arc::new(create());
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
