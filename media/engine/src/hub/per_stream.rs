//! State that a gateway shares among all viewers of a stream, such as a packetizer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::hub::stream::Stream;

/// One `T` per stream instance, held weakly: it is dropped with its last strong reference.
#[derive(Debug)]
pub struct PerStream<T>(Mutex<HashMap<u64, Weak<T>>>);

impl<T> Default for PerStream<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> PerStream<T> {
    /// Returns the `T` of this stream instance and calls `create` if there is none. `create` runs
    /// under a lock, so it must not wait.
    pub fn get_or_create(&self, stream: &Stream, create: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = map.get(&stream.instance_id()).and_then(Weak::upgrade) {
            return found;
        }
        map.retain(|_, weak| weak.strong_count() > 0);
        let created = create();
        map.insert(stream.instance_id(), Arc::downgrade(&created));
        created
    }
}
