//! The directory of live streams of this engine, by name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use headwater_api::StreamName;
use headwater_wire::Codec;

use crate::hub::error::{FindError, PublishError};
use crate::hub::limits::Limits;
use crate::hub::relayed::RelayedStreams;
use crate::hub::remote::{RemoteStreams, StreamOwnership};
use crate::hub::rendition::{TranscodeError, Transcoder};
use crate::hub::stream::{Producer, Stream};
use crate::hub::stream_table::StreamTable;
use crate::runtime::wall_clock::WallClock;

/// The live streams of this engine; clones share them.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    wall_clock: WallClock,
    /// Streams published on this node.
    published: Arc<StreamTable>,
    /// Streams relayed from other nodes. Separate, so that a publisher can move to this node while
    /// viewers on this node still receive the relayed stream.
    relayed: RelayedStreams,
    remote_streams: OnceLock<Box<dyn RemoteStreams>>,
    ownership: OnceLock<Box<dyn StreamOwnership>>,
    transcoder: Option<Box<dyn Transcoder>>,
    /// Live renditions, by the instance id of their source.
    renditions: Mutex<HashMap<(u64, Codec), Arc<Stream>>>,
}

impl Hub {
    /// Creates an empty hub without a transcoder.
    pub fn new(limits: Limits) -> Self {
        Self::with_transcoder(limits, None)
    }

    /// Creates an empty hub.
    pub fn with_transcoder(limits: Limits, transcoder: Option<Box<dyn Transcoder>>) -> Self {
        let wall_clock = WallClock::default();
        Self(Arc::new(Inner {
            limits,
            published: Arc::new(StreamTable::new(limits, &wall_clock)),
            relayed: RelayedStreams::new(limits, &wall_clock),
            wall_clock,
            remote_streams: OnceLock::new(),
            ownership: OnceLock::new(),
            transcoder,
            renditions: Mutex::default(),
        }))
    }

    /// Connects the hub to a cluster. Must be called before the first stream is published or
    /// played; later calls have no effect.
    pub fn join_cluster(&self, remote_streams: Box<dyn RemoteStreams>, ownership: Option<Box<dyn StreamOwnership>>) {
        // Only the first call has an effect; later values are dropped.
        let _ = self.0.remote_streams.set(remote_streams);
        if let Some(ownership) = ownership {
            let _ = self.0.ownership.set(ownership);
        }
    }

    /// Returns the clock from which stream generations and segment numbers are derived.
    pub fn wall_clock(&self) -> &WallClock {
        &self.0.wall_clock
    }

    /// Returns the number of finished segments that a stream with viewers keeps, so that nodes that
    /// join it late can serve the segments that other nodes list. 0 outside a cluster.
    pub fn history_segments(&self) -> usize {
        if self.is_in_cluster() { self.0.limits.history_segments } else { 0 }
    }

    /// Returns the rendition of `source` in `codec`, and starts it if there is none. It ends
    /// when the source ends or when it had no consumer for a while; a caller that still needs
    /// it calls again.
    ///
    /// # Errors
    /// Fails if this engine cannot transcode the stream to `codec`.
    pub fn rendition(&self, source: &Arc<Stream>, codec: Codec) -> Result<Arc<Stream>, TranscodeError> {
        let transcoder =
            self.0.transcoder.as_ref().ok_or(TranscodeError::Unsupported { from: "any stream", to: codec.name() })?;
        let rendition_key = (source.instance_id(), codec);
        let mut renditions = self.0.renditions.lock().unwrap_or_else(PoisonError::into_inner);
        renditions.retain(|_, stream| !stream.is_ended());
        if let Some(found) = renditions.get(&rendition_key) {
            return Ok(Arc::clone(found));
        }
        let limits = self.0.limits;
        let depth = (limits.depth_frames, limits.depth_bytes);
        let stream = Arc::new(Stream::new(
            source.name().clone(),
            source.affinity().clone(),
            "transcode",
            depth,
            &self.0.wall_clock,
            None,
        ));
        // A rendition is in no table.
        let producer = Producer::new(Arc::clone(&stream), &limits, None);
        transcoder.start(source, codec, producer)?;
        renditions.insert(rendition_key, Arc::clone(&stream));
        Ok(stream)
    }

    /// Publishes a stream on this node; it ends when the producer is dropped. The
    /// status shows `protocol`.
    ///
    /// # Errors
    /// Fails if the name is in use on this node or the hub is full.
    pub fn publish(&self, name: &StreamName, protocol: &'static str) -> Result<Producer, PublishError> {
        Producer::publish(&self.0.published, name, protocol, None)
    }

    /// Publishes a stream whose name must be unique in the cluster. Waits up to some seconds
    /// for the claim.
    ///
    /// # Errors
    /// Fails if the name is in use on this or another node, or the hub is full.
    pub async fn publish_owned(&self, name: &StreamName, protocol: &'static str) -> Result<Producer, PublishError> {
        let mut producer = self.publish(name, protocol)?;
        if let Some(ownership) = self.0.ownership.get() {
            let claim = ownership.claim(producer.stream()).await?;
            producer.set_claim(claim);
        }
        Ok(producer)
    }

    /// Returns the streams relayed from other nodes, to publish one.
    pub fn relayed(&self) -> &RelayedStreams {
        &self.0.relayed
    }

    /// Returns the live stream of this name on this node: the published one, otherwise
    /// the relayed one.
    pub fn stream(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.published(name).or_else(|| self.0.relayed.get(name))
    }

    /// Returns the live stream of this name that is published on this node.
    pub fn published(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.0.published.get(name)
    }

    /// Returns the live stream of this name, relayed from another node if necessary. Waits up
    /// to some seconds.
    ///
    /// # Errors
    /// Fails if no node publishes the stream, or its node has no capacity left.
    pub async fn find(&self, name: &StreamName) -> Result<Arc<Stream>, FindError> {
        match (self.stream(name), self.0.remote_streams.get()) {
            (Some(stream), _) => Ok(stream),
            (None, Some(remote_streams)) => remote_streams.fetch(&self.0.relayed, name).await,
            (None, None) => Err(FindError::NotPublished),
        }
    }

    /// Returns true if streams may be published on other nodes.
    pub fn is_in_cluster(&self) -> bool {
        self.0.remote_streams.get().is_some()
    }

    /// Returns all live streams on this node, sorted by name.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        let mut all = self.0.relayed.snapshot();
        all.extend(self.0.published.snapshot());
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }
}
