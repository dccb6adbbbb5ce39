//! The edge side: finds streams on other nodes for the hub. One pull per stream serves all viewers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::error::Chain;
use headwater_wire::relay::{ClusterSecret, Owner};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::gateway::relay::link::Link;
use crate::gateway::relay::metrics::Metrics;
use crate::gateway::relay::owner_watch::OwnerWatch;
use crate::gateway::relay::pull::Pull;
use crate::gateway::relay::pulls::{PullState, Pulls, RunningPull};
use crate::gateway::relay::resolver::StreamResolver;
use crate::gateway::relay::timing::Timing;
use crate::gateway::relay::upstreams::Upstreams;
use crate::hub::{FetchFuture, FindError, RelayedStreams, RemoteStreams};
use crate::runtime::worker_pool::WorkerAffinity;

/// Pulls streams from other nodes; clones share the pulls.
#[derive(Debug, Clone)]
pub struct RelayClient(Arc<Pulls>);

impl RelayClient {
    /// A client without pulls. `resolver` finds the nodes that have a stream.
    pub fn new(secret: ClusterSecret, resolver: Arc<dyn StreamResolver>, timing: Timing) -> Self {
        Self(Arc::new(Pulls::new(secret, resolver, timing)))
    }

    /// Counters of the relay, shared with its server.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Connects to another node's relay and performs the handshake, which authenticates both sides.
    ///
    /// # Errors
    /// The reason of the failure, as one sentence.
    pub async fn check_connection(&self, address: SocketAddr) -> Result<(), String> {
        let link = Link::connect(address, &self.0.secret, self.0.timing.connect_timeout).await;
        link.map(drop).map_err(|e| Chain(&e).to_string())
    }

    /// For how long `owner` has been silent; `None` if this node does not pull the stream, or from
    /// another owner.
    pub(super) fn silence_of(&self, name: &StreamName, owner: &Owner) -> Option<Duration> {
        let watch = self.owner_watch(name)?;
        let silence = watch.silence();
        silence.owner(Instant::now()).filter(|(observed, _)| *observed == owner).map(|(_, silence)| silence)
    }

    /// The silence of the owner of a pulled stream.
    pub(super) fn owner_watch(&self, name: &StreamName) -> Option<Arc<OwnerWatch>> {
        self.0.running().get(name).map(|pull| Arc::clone(&pull.owner_watch))
    }

    /// Subscribes to the running pull of this stream, or spawns one, unless that failed a moment
    /// ago.
    fn subscribe_or_spawn(
        &self,
        relayed: &RelayedStreams,
        name: &StreamName,
    ) -> Result<watch::Receiver<PullState>, FindError> {
        let mut running = self.0.running();
        if let Some(pull) = running.get(name) {
            return Ok(pull.state.clone());
        }
        if let Some(error) = self.0.failed_lookups().get(name, Instant::now()) {
            return Err(error);
        }
        let Ok(search_permit) = Arc::clone(&self.0.searches).try_acquire_owned() else {
            return Err(FindError::TooManySearches);
        };
        let (state_tx, state_rx) = watch::channel(PullState::Searching(FindError::NotPublished));
        let owner_watch = Arc::new(OwnerWatch::new(Instant::now()));
        let pull = RunningPull { state: state_rx.clone(), owner_watch: Arc::clone(&owner_watch) };
        running.insert(name.clone(), pull);
        drop(running);
        let pull = Pull::new(Arc::clone(&self.0), relayed, name, state_tx, owner_watch, search_permit);
        // On the worker thread of the first viewer, where the stream is also packaged.
        WorkerAffinity::current().spawn(pull.run());
        Ok(state_rx)
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.0.timing
    }

    pub(crate) fn secret(&self) -> &ClusterSecret {
        &self.0.secret
    }

    pub(super) fn upstreams(&self) -> &Upstreams {
        &self.0.upstreams
    }
}

impl RemoteStreams for RelayClient {
    fn fetch(&self, relayed: &RelayedStreams, name: &StreamName) -> FetchFuture {
        let mut state = match self.subscribe_or_spawn(relayed, name) {
            Ok(state) => state,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let timeout = self.0.timing.fetch_timeout;
        Box::pin(async move {
            let settled = state.wait_for(|state| !matches!(state, PullState::Searching(_)));
            // The search may continue; this viewer stops waiting.
            let _ = tokio::time::timeout(timeout, settled).await;
            let state = state.borrow();
            match &*state {
                PullState::Live(stream) => Ok(Arc::clone(stream)),
                PullState::Ended(error) | PullState::Searching(error) => Err(*error),
            }
        })
    }
}
