//! Something a gateway does once per stream, however many viewers it has: found again while anybody holds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Stream;

/// One `T` per live stream, kept only as long as somebody else holds it.
#[derive(Debug)]
pub struct PerStream<T>(Mutex<HashMap<u64, Weak<T>>>);

impl<T> Default for PerStream<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> PerStream<T> {
    /// The `T` of this life of the stream; `make` runs (under a lock, so it must not wait) if there is none.
    pub fn get_or_make(&self, stream: &Stream, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = map.get(&stream.epoch()).and_then(Weak::upgrade) {
            return found;
        }
        map.retain(|_, weak| weak.strong_count() > 0);
        let made = make();
        map.insert(stream.epoch(), Arc::downgrade(&made));
        made
    }
}
