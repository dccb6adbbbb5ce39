//! All live streams of this engine, by name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use headwater_api::StreamName;
use headwater_wire::{Codec, MediaTime};

use super::elsewhere::{Elsewhere, Missing, Owners};
use super::rendition::{TranscodeError, Transcoder};
use super::stream::{Producer, RELAY, Stream};
use super::wall_clock::WallClock;
use crate::lanes::Home;

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
    /// Finished segments kept for nodes that join a stream late, within the two depths above.
    pub history_segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // 2,000 frames hold a key group of 20 s at 60 pictures and 43 sounds a second; 32 MiB hold 12 s at 20 Mbit/s.
        Self {
            streams: 1_000,
            depth_frames: 2_000,
            depth_bytes: 32 << 20,
            segment: MediaTime::from_ms(2_000),
            history_segments: 8,
        }
    }
}

/// Why a stream could not be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Somebody else publishes under this name.
    #[error("stream {0} is already live")]
    AlreadyLive(StreamName),
    /// Somebody else publishes under this name on another node.
    #[error("stream {name} is already live on node {node}")]
    LiveElsewhere {
        /// The stream.
        name: StreamName,
        /// The node's id.
        node: String,
    },
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
    wall: WallClock,
    /// Published here.
    streams: Mutex<HashMap<StreamName, Arc<Stream>>>,
    /// Published elsewhere. Apart, so that a publisher can come here while viewers here still watch from there.
    relayed: Mutex<HashMap<StreamName, Arc<Stream>>>,
    elsewhere: OnceLock<Box<dyn Elsewhere>>,
    owners: OnceLock<Box<dyn Owners>>,
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
            wall: WallClock::default(),
            streams: Mutex::default(),
            relayed: Mutex::default(),
            elsewhere: OnceLock::new(),
            owners: OnceLock::new(),
            transcoder,
            renditions: Mutex::default(),
        }))
    }

    /// Joins a cluster. Once, before anybody publishes or watches; a second time changes nothing.
    pub fn join(&self, elsewhere: Box<dyn Elsewhere>, owners: Option<Box<dyn Owners>>) {
        // Only the first counts, and what was given later is dropped.
        let _ = self.0.elsewhere.set(elsewhere);
        if let Some(owners) = owners {
            let _ = self.0.owners.set(owners);
        }
    }

    /// By which streams are named and numbered.
    pub fn wall_clock(&self) -> &WallClock {
        &self.0.wall
    }

    /// Finished segments that a stream with viewers keeps, so that nodes which join it late can serve what others list.
    /// 0 on a node that is alone.
    pub fn history_segments(&self) -> usize {
        if self.0.elsewhere.get().is_some() { self.0.limits.history_segments } else { 0 }
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
        let epoch = next_epoch();
        let depth = (limits.depth_frames, limits.depth_bytes);
        let stream = Arc::new(Stream::new(
            source.name().clone(),
            source.home().clone(),
            epoch,
            "transcode",
            depth,
            &self.0.wall,
            None,
        ));
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
        self.insert(&self.0.streams, name, protocol, None)
    }

    /// Begins a stream whose name no other node of the cluster may have. Waits for the cluster's answer, seconds at most.
    ///
    /// # Errors
    /// If the name is taken here or elsewhere, or the hub is full.
    pub async fn publish_owned(&self, name: &StreamName, protocol: &'static str) -> Result<Producer, PublishError> {
        let mut producer = self.publish(name, protocol)?;
        if let Some(owners) = self.0.owners.get() {
            let claim = owners.claim(producer.stream()).await?;
            producer.hold(claim);
        }
        Ok(producer)
    }

    /// Begins a stream that is published on another node; `life` is when it began there.
    ///
    /// # Errors
    /// If it is relayed already, or the hub is full.
    pub fn publish_relayed(&self, name: &StreamName, life: u64) -> Result<Producer, PublishError> {
        self.insert(&self.0.relayed, name, RELAY, Some(life))
    }

    fn insert(
        &self,
        table: &Table,
        name: &StreamName,
        protocol: &'static str,
        life: Option<u64>,
    ) -> Result<Producer, PublishError> {
        let limits = self.0.limits;
        let mut streams = lock(table);
        if streams.contains_key(name) {
            return Err(PublishError::AlreadyLive(name.clone()));
        }
        if streams.len() >= limits.streams {
            return Err(PublishError::Full { limit: limits.streams });
        }
        let epoch = next_epoch();
        let depth = (limits.depth_frames, limits.depth_bytes);
        let stream = Arc::new(Stream::new(name.clone(), Home::here(), epoch, protocol, depth, &self.0.wall, life));
        streams.insert(name.clone(), Arc::clone(&stream));
        drop(streams);
        let registration = Registration { hub: Arc::downgrade(&self.0), name: name.clone(), epoch };
        Ok(Producer::new(stream, limits.segment, registration))
    }

    /// The live stream of this name that is here: published here, else relayed.
    pub fn stream(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.published(name).or_else(|| lock(&self.0.relayed).get(name).cloned())
    }

    /// The live stream of this name that is published here.
    pub fn published(&self, name: &StreamName) -> Option<Arc<Stream>> {
        lock(&self.0.streams).get(name).cloned()
    }

    /// The live stream of this name, fetched from another node if it is not here. Waits seconds at most.
    ///
    /// # Errors
    /// If it can be had neither here nor elsewhere; with the reason.
    pub async fn find(&self, name: &StreamName) -> Result<Arc<Stream>, Missing> {
        match (self.stream(name), self.0.elsewhere.get()) {
            (Some(here), _) => Ok(here),
            (None, Some(elsewhere)) => elsewhere.fetch(self, name).await,
            (None, None) => Err(Missing::Unknown),
        }
    }

    /// True if a stream that is not here may be elsewhere.
    pub fn is_in_cluster(&self) -> bool {
        self.0.elsewhere.get().is_some()
    }

    /// All live streams that are here, sorted by name.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        let mut all = lock(&self.0.relayed).clone();
        all.extend(lock(&self.0.streams).clone());
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }
}

/// Counts up within the process, whatever the hub: gateways serve more than one.
fn next_epoch() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

type Table = Mutex<HashMap<StreamName, Arc<Stream>>>;

fn lock(table: &Table) -> MutexGuard<'_, HashMap<StreamName, Arc<Stream>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
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
        for table in [&hub.streams, &hub.relayed] {
            let mut streams = lock(table);
            if streams.get(&self.name).is_some_and(|s| s.epoch() == self.epoch) {
                streams.remove(&self.name);
            }
        }
    }
}
