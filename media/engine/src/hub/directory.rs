//! All live streams of this engine, by name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use headwater_api::StreamName;
use headwater_wire::{Codec, MediaTime};

use super::rendition::{TranscodeError, Transcoder};
use super::stream::{Producer, Stream};

/// How much the hub holds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Live streams at most.
    pub streams: usize,
    /// Frames kept per stream at most.
    pub depth_frames: usize,
    /// Payload bytes kept per stream at most.
    pub depth_bytes: usize,
    /// Target duration of a segment.
    pub segment: MediaTime,
}

impl Default for Limits {
    fn default() -> Self {
        // 2,000 frames hold a key group of 20 s at 60 pictures and 43 sounds a second; 32 MiB hold 12 s at 20 Mbit/s.
        Self { streams: 1_000, depth_frames: 2_000, depth_bytes: 32 << 20, segment: MediaTime::from_ms(2_000) }
    }
}

/// Why a stream could not be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Somebody else publishes under this name.
    #[error("stream {0} is already live")]
    AlreadyLive(StreamName),
    /// The node is full.
    #[error("this node already carries {limit} streams")]
    Full {
        /// Streams at most.
        limit: usize,
    },
}

/// A handle to all live streams; clones share them.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    next_epoch: AtomicU64,
    streams: Mutex<HashMap<StreamName, Arc<Stream>>>,
    transcoder: Option<Box<dyn Transcoder>>,
    /// Live renditions, by the epoch of their source.
    renditions: Mutex<HashMap<(u64, Codec), Arc<Stream>>>,
}

impl Hub {
    /// An empty hub that can make no renditions.
    pub fn new(limits: Limits) -> Self {
        Self::with_transcoder(limits, None)
    }

    /// An empty hub.
    pub fn with_transcoder(limits: Limits, transcoder: Option<Box<dyn Transcoder>>) -> Self {
        Self(Arc::new(Inner {
            limits,
            next_epoch: AtomicU64::new(1),
            streams: Mutex::default(),
            transcoder,
            renditions: Mutex::default(),
        }))
    }

    /// The rendition of `source` in `codec`: the one there is, or a new one. It lives until the source ends or nobody
    /// reads it for a while; then its readers see the end, and whoever still wants it asks again.
    ///
    /// # Errors
    /// If nobody here can make it.
    pub fn rendition(&self, source: &Arc<Stream>, codec: Codec) -> Result<Arc<Stream>, TranscodeError> {
        let transcoder =
            self.0.transcoder.as_ref().ok_or(TranscodeError::Unsupported { from: "any stream", to: codec.name() })?;
        let key = (source.epoch(), codec);
        let mut renditions = self.0.renditions.lock().unwrap_or_else(PoisonError::into_inner);
        renditions.retain(|_, stream| !stream.is_ended());
        if let Some(found) = renditions.get(&key) {
            return Ok(Arc::clone(found));
        }
        let limits = self.0.limits;
        let epoch = self.0.next_epoch.fetch_add(1, Ordering::Relaxed);
        let depth = (limits.depth_frames, limits.depth_bytes);
        let stream = Arc::new(Stream::new(source.name().clone(), epoch, "transcode", depth));
        let producer = Producer::new(
            Arc::clone(&stream),
            limits.segment,
            Registration { hub: Weak::new(), name: source.name().clone(), epoch },
        );
        transcoder.start(source, codec, producer)?;
        renditions.insert(key, Arc::clone(&stream));
        Ok(stream)
    }

    /// Begins a stream; it lives until the producer is dropped. `protocol` is what the status shows.
    ///
    /// # Errors
    /// If the name is taken or the hub is full.
    pub fn publish(&self, name: &StreamName, protocol: &'static str) -> Result<Producer, PublishError> {
        let limits = self.0.limits;
        let mut streams = self.0.lock();
        if streams.contains_key(name) {
            return Err(PublishError::AlreadyLive(name.clone()));
        }
        if streams.len() >= limits.streams {
            return Err(PublishError::Full { limit: limits.streams });
        }
        let epoch = self.0.next_epoch.fetch_add(1, Ordering::Relaxed);
        let depth = (limits.depth_frames, limits.depth_bytes);
        let stream = Arc::new(Stream::new(name.clone(), epoch, protocol, depth));
        streams.insert(name.clone(), Arc::clone(&stream));
        drop(streams);
        let registration = Registration { hub: Arc::downgrade(&self.0), name: name.clone(), epoch };
        Ok(Producer::new(stream, limits.segment, registration))
    }

    /// The live stream of this name.
    pub fn stream(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.0.lock().get(name).cloned()
    }

    /// All live streams, sorted by name.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        let mut all: Vec<_> = self.0.lock().values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a stream off the table when its producer goes.
#[derive(Debug)]
pub(super) struct Registration {
    hub: Weak<Inner>,
    name: StreamName,
    epoch: u64,
}

impl Registration {
    pub(super) fn remove(&self) {
        let Some(hub) = self.hub.upgrade() else { return };
        let mut streams = hub.lock();
        if streams.get(&self.name).is_some_and(|s| s.epoch() == self.epoch) {
            streams.remove(&self.name);
        }
    }
}
