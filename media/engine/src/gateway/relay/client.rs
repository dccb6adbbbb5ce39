//! The edge side: pulls a stream from another node, once for all viewers, and is its producer here.
//!
//! ```text
//!   requested --> searching --(no node has it)--> ended
//!                     |
//!                   live --(publisher ended it, or `no_viewers_timeout`)--> ended
//!                   |   ^
//!       source lost |   | found again: the same hub stream continues
//!                   v   |
//!                 searching --(`search_timeout`)--> ended
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::error::Chain;
use headwater_wire::relay::{ClusterSecret, EndReason, Message, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::gateway::relay::failed_lookups::FailedLookups;
use crate::gateway::relay::ingest::{Ingest, IngestError, Step};
use crate::gateway::relay::link::{Link, LinkError};
use crate::gateway::relay::metrics::Metrics;
use crate::gateway::relay::resolver::{ResolveError, StreamLocation, StreamResolver};
use crate::gateway::relay::upstreams::Upstreams;
use crate::hub::{FetchFuture, FindError, RelayedStreams, RemoteStreams, Stream};
use crate::runtime::worker_pool::WorkerAffinity;

/// Timeouts and intervals of the edge side.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For connecting and the handshake, per address.
    pub connect_timeout: Duration,
    /// Interval of pings.
    pub ping_interval: Duration,
    /// A source that sends nothing for this duration is lost.
    pub silence_timeout: Duration,
    /// A pull ends after this duration without viewers.
    pub no_viewers_timeout: Duration,
    /// How long a new source is searched for after one was lost, while viewers wait. Longer than
    /// the lease of a stream.
    pub search_timeout: Duration,
    /// How long a viewer waits for a stream that is not here yet.
    pub fetch_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            ping_interval: Duration::from_secs(1),
            silence_timeout: Duration::from_secs(3),
            no_viewers_timeout: Duration::from_secs(5),
            search_timeout: Duration::from_secs(20),
            fetch_timeout: Duration::from_secs(5),
        }
    }
}

/// Pulls streams from other nodes; clones share the pulls.
#[derive(Debug, Clone)]
pub struct RelayClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    secret: ClusterSecret,
    resolver: Arc<dyn StreamResolver>,
    timing: Timing,
    upstreams: Upstreams,
    metrics: Metrics,
    /// One entry per running pull, including those still searching. Bounded by the hub's limits.
    pulls: Mutex<HashMap<StreamName, watch::Receiver<PullState>>>,
    /// Pulls without a source, of streams that may not exist.
    searches: Arc<Semaphore>,
    failed: Mutex<FailedLookups>,
}

/// State of a pull, watched by the viewers that wait for it.
#[derive(Debug, Clone)]
enum PullState {
    /// No source yet; with the error to report if the viewer stops waiting.
    Searching(FindError),
    Live(Arc<Stream>),
    Ended(FindError),
}

impl PullState {
    /// The error for a viewer that stops waiting.
    fn error(&self) -> FindError {
        match self {
            Self::Searching(error) | Self::Ended(error) => *error,
            Self::Live(_) => FindError::NotPublished,
        }
    }
}

impl RelayClient {
    /// A client without pulls. `resolver` finds the nodes that have a stream.
    pub fn new(secret: ClusterSecret, resolver: Arc<dyn StreamResolver>, timing: Timing) -> Self {
        Self(Arc::new(Inner {
            secret,
            resolver,
            timing,
            upstreams: Upstreams::default(),
            metrics: Metrics::default(),
            pulls: Mutex::default(),
            searches: Arc::new(Semaphore::new(MAX_SEARCHES)),
            failed: Mutex::default(),
        }))
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

    pub(crate) fn secret(&self) -> &ClusterSecret {
        &self.0.secret
    }

    pub(super) fn upstreams(&self) -> &Upstreams {
        &self.0.upstreams
    }
}

impl RemoteStreams for RelayClient {
    fn fetch(&self, relayed: &RelayedStreams, name: &StreamName) -> FetchFuture {
        let mut state = match self.0.subscribe_or_spawn(relayed, name) {
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

impl Inner {
    /// Subscribes to the running pull of this stream, or spawns one, unless that failed a moment
    /// ago.
    fn subscribe_or_spawn(
        self: &Arc<Self>,
        relayed: &RelayedStreams,
        name: &StreamName,
    ) -> Result<watch::Receiver<PullState>, FindError> {
        let mut pulls = self.lock();
        if let Some(running) = pulls.get(name) {
            return Ok(running.clone());
        }
        if let Some(error) = self.failed_lookups().get(name, Instant::now()) {
            return Err(error);
        }
        let Ok(search_permit) = Arc::clone(&self.searches).try_acquire_owned() else {
            return Err(FindError::TooManySearches);
        };
        let (state_tx, state_rx) = watch::channel(PullState::Searching(FindError::NotPublished));
        pulls.insert(name.clone(), state_rx.clone());
        drop(pulls);
        let pull = Pull {
            inner: Arc::clone(self),
            ingest: Ingest::new(relayed.clone(), name.clone()),
            name: name.clone(),
            state_tx,
            search_permit: Some(search_permit),
        };
        // On the worker thread of the first viewer, where the stream is also packaged.
        WorkerAffinity::current().spawn(pull.run());
        Ok(state_rx)
    }

    fn failed_lookups(&self) -> MutexGuard<'_, FailedLookups> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, watch::Receiver<PullState>>> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that pulls one stream.
struct Pull {
    inner: Arc<Inner>,
    name: StreamName,
    ingest: Ingest,
    state_tx: watch::Sender<PullState>,
    /// Held until the first source is live.
    search_permit: Option<OwnedSemaphorePermit>,
}

/// Why a connection to a source ended.
#[derive(Debug)]
enum Disconnect {
    /// The connection failed, or sent something that cannot be used.
    Lost(IngestError),
    EndedByOrigin(EndReason),
    Refused(Refusal),
    Unresolved(ResolveError),
    NoViewers,
}

/// Why a pull ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PullEnd {
    NotFound,
    StreamEnded,
    NoViewers,
    GivenUp,
}

impl Pull {
    async fn run(mut self) {
        self.inner.metrics.pulls.inc();
        let end = self.pull().await;
        self.inner.upstreams.remove(&self.name);
        self.inner.metrics.pulls.dec();
        if end == PullEnd::GivenUp {
            self.inner.metrics.given_up.inc();
        }
        let level = if end == PullEnd::NotFound { log::Level::Debug } else { log::Level::Info };
        log::log!(level, stream = self.name.as_str(), reason:? = end; "relay from an origin ended");
    }

    async fn pull(&mut self) -> PullEnd {
        // Restarted each time a source becomes live.
        let mut search = Search::new(self.inner.timing.fetch_timeout);
        loop {
            match self.connect_once(&mut search).await {
                Disconnect::NoViewers => return PullEnd::NoViewers,
                Disconnect::EndedByOrigin(EndReason::StreamEnded) => return PullEnd::StreamEnded,
                disconnect @ Disconnect::Unresolved(_) if self.ingest.producer().is_none() => {
                    self.set_search_error(disconnect.find_error());
                    return PullEnd::NotFound;
                }
                disconnect => {
                    self.inner.upstreams.remove(&self.name);
                    // A full source has the stream: there is nothing to look up.
                    search.source_is_full = matches!(disconnect, Disconnect::Refused(Refusal::Full));
                    self.set_search_error(disconnect.find_error());
                    if !search.source_is_full {
                        self.inner.resolver.invalidate(&self.name);
                    }
                    log::info!(stream = self.name.as_str(), reason = disconnect.describe().as_str(); "relay source lost, searching");
                }
            }
            let is_live = self.ingest.producer().is_some();
            // A viewer without a stream gets an error soon; viewers of a live stream wait longer.
            let is_hopeless = !is_live && !search.source_is_full && search.tries > MAX_INITIAL_RETRIES;
            if is_hopeless || search.has_timed_out() {
                return if is_live { PullEnd::GivenUp } else { PullEnd::NotFound };
            }
            if self.sleep_then_is_idle(search.retry_delay()).await {
                return PullEnd::NoViewers;
            }
        }
    }

    /// Sets the error for viewers that wait for a source.
    fn set_search_error(&self, error: FindError) {
        self.state_tx.send_if_modified(|state| match state {
            PullState::Searching(before) => std::mem::replace(before, error) != error,
            PullState::Live(_) | PullState::Ended(_) => false,
        });
    }

    /// Finds a source and reads from it until the connection ends.
    async fn connect_once(&mut self, search: &mut Search) -> Disconnect {
        search.tries += 1;
        let location = match self.inner.resolver.resolve(&self.name).await {
            Ok(location) => location,
            Err(error) => return Disconnect::Unresolved(error),
        };
        if search.refused_by.as_ref() == Some(&location) {
            // The same nodes would give the same answer.
            return Disconnect::Unresolved(ResolveError::NotPublished);
        }
        let StreamLocation { relays, any_of, owner_relays } = location.clone();
        let last = match (self.follow_first(relays, any_of, owner_relays.is_some(), search).await, owner_relays) {
            (Disconnect::Refused(Refusal::Full | Refusal::NotFound), Some(owner)) => {
                self.follow_first(owner, false, false, search).await
            }
            (last, _) => last,
        };
        if matches!(last, Disconnect::Refused(Refusal::NotFound)) && self.ingest.producer().is_none() {
            search.refused_by = Some(location);
        }
        last
    }

    /// Reads from the first of these relays that has the stream. If none of them has it, returns
    /// the last answer; with `any_of`, the answer from which the stream is most likely to be live.
    async fn follow_first(
        &mut self,
        relays: Vec<SocketAddr>,
        any_of: bool,
        via_edge: bool,
        search: &mut Search,
    ) -> Disconnect {
        let mut result = Disconnect::Refused(Refusal::NotFound);
        let tried = if any_of { relays.len() } else { MAX_ADDRESSES };
        for address in relays.into_iter().take(tried) {
            let next = match Link::connect(address, &self.inner.secret, self.inner.timing.connect_timeout).await {
                Ok(link) => match self.follow(link, address, via_edge, search).await {
                    refused @ Disconnect::Refused(_) => refused,
                    disconnect => return disconnect,
                },
                Err(e) => Disconnect::Lost(e.into()),
            };
            if !any_of || next.likelihood() >= result.likelihood() {
                result = next;
            }
        }
        result
    }

    async fn follow(&mut self, link: Link, address: SocketAddr, via_edge: bool, search: &mut Search) -> Disconnect {
        let Link { mut reader, mut writer } = link;
        let timing = self.inner.timing;
        let resumes = self.ingest.producer().is_some();
        let subscribe = Message::Subscribe {
            app: self.name.app().to_owned(),
            stream_id: self.name.stream_id().to_owned(),
            history: !resumes,
            max_hops: 1 + u8::from(via_edge),
        };
        if let Err(e) = writer.send(&subscribe, timing.silence_timeout).await {
            return Disconnect::Lost(e.into());
        }
        self.ingest.on_connect();
        let mut hops = 1;
        let mut tick = tokio::time::interval(timing.ping_interval / TICKS_PER_PING);
        let (mut last_received, mut last_viewed, mut ticks) = (Instant::now(), Instant::now(), 0_u64);
        loop {
            let message = tokio::select! {
                message = reader.next() => message,
                now = tick.tick() => {
                    if now.duration_since(last_received) > timing.silence_timeout {
                        return Disconnect::Lost(LinkError::ReadTimeout(timing.silence_timeout).into());
                    }
                    ticks += 1;
                    if let Some(producer) = self.ingest.producer() {
                        if producer.stream().has_consumers() {
                            last_viewed = now;
                        } else if now.duration_since(last_viewed) > timing.no_viewers_timeout {
                            // If this is not sent, the closed socket has the same effect.
                            let _ = writer.send(&Message::End(EndReason::Idle), timing.ping_interval).await;
                            return Disconnect::NoViewers;
                        }
                        if producer.take_key_frame_request() {
                            writer.queue_record(|out| Message::KeyFrame.write(out));
                        }
                    }
                    if ticks.is_multiple_of(u64::from(TICKS_PER_PING)) {
                        if self.ingest.producer().is_some() && now.duration_since(last_received) <= timing.ping_interval {
                            self.inner.resolver.confirm(&self.name);
                        }
                        writer.queue_record(|out| Message::Ping(ticks).write(out));
                    }
                    match writer.flush(timing.silence_timeout).await {
                        Ok(()) => continue,
                        Err(e) => return Disconnect::Lost(e.into()),
                    }
                }
            };
            last_received = Instant::now();
            let step = match message {
                Ok(message) => self.ingest.on_message(message),
                Err(e) => Err(e.into()),
            };
            match step {
                Ok(Step::Continue) => {}
                Ok(Step::Accepted { hops: reported_hops }) => {
                    hops = reported_hops;
                }
                Ok(Step::Live) => {
                    self.on_live(address, hops, resumes, search);
                    last_viewed = Instant::now();
                }
                Ok(Step::Refused(reason)) => return Disconnect::Refused(reason),
                Ok(Step::End(reason)) => return Disconnect::EndedByOrigin(reason),
                Err(e) => return Disconnect::Lost(e),
            }
        }
    }

    fn on_live(&mut self, address: SocketAddr, hops: u8, resumes: bool, search: &mut Search) {
        let Some(producer) = self.ingest.producer() else { return };
        self.inner.upstreams.set(&self.name, hops);
        self.search_permit = None;
        *search = Search::new(self.inner.timing.search_timeout);
        if resumes {
            self.inner.metrics.resumed.inc();
        } else {
            self.state_tx.send_replace(PullState::Live(Arc::clone(producer.stream())));
        }
        log::info!(stream = self.name.as_str(), peer:% = address, hops, resumes; "relay from an origin is live");
    }

    /// Sleeps for `delay`; then returns true if the stream has no viewers.
    async fn sleep_then_is_idle(&self, delay: Duration) -> bool {
        tokio::time::sleep(delay).await;
        // No grace period here: without a source there is nothing to show to new viewers.
        self.ingest.producer().is_some_and(|producer| !producer.stream().has_consumers())
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        let error = self.state_tx.borrow().error();
        if self.ingest.producer().is_none() && error != FindError::AtCapacity {
            self.inner.failed_lookups().insert(self.name.clone(), error, Instant::now());
        }
        // First the entry, then the stream: a request in between starts a new pull.
        self.inner.lock().remove(&self.name);
        self.state_tx.send_replace(PullState::Ended(error));
    }
}

impl Disconnect {
    /// How likely it is that the stream is live, from 0; to compare the answers of several nodes.
    fn likelihood(&self) -> u8 {
        match self.find_error() {
            FindError::AtCapacity => 2,
            FindError::Unreachable | FindError::RegistryUnreachable | FindError::TooManySearches => 1,
            FindError::NotPublished => 0,
        }
    }

    /// The error for a viewer that waits for the first source.
    fn find_error(&self) -> FindError {
        match self {
            Self::Refused(Refusal::Full) => FindError::AtCapacity,
            Self::Unresolved(ResolveError::RegistryUnreachable) => FindError::RegistryUnreachable,
            Self::Unresolved(ResolveError::NotPublished) | Self::Refused(Refusal::NotFound) | Self::NoViewers => {
                FindError::NotPublished
            }
            Self::Lost(_) | Self::EndedByOrigin(_) | Self::Refused(Refusal::Draining) => FindError::Unreachable,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Lost(e) => Chain(e).to_string(),
            Self::EndedByOrigin(EndReason::Draining) => "the origin is draining".to_owned(),
            Self::EndedByOrigin(EndReason::Moved) => "another node owns the stream".to_owned(),
            Self::EndedByOrigin(_) => "the origin ended the stream".to_owned(),
            Self::Refused(Refusal::Full) => "the node that has the stream is at its limit of edges".to_owned(),
            Self::Refused(reason) => format!("no node has the stream ({reason:?})"),
            Self::Unresolved(error) => error.to_string(),
            Self::NoViewers => "no viewers".to_owned(),
        }
    }
}

/// Progress of the search for a source.
#[derive(Debug)]
struct Search {
    timeout: Duration,
    /// When the search began; set by the first failure.
    since: Option<Instant>,
    tries: u32,
    /// The last source has the stream, but accepts no more edges.
    source_is_full: bool,
    /// Nodes that do not have the stream, although they should.
    refused_by: Option<StreamLocation>,
}

impl Search {
    fn new(timeout: Duration) -> Self {
        Self { timeout, since: None, tries: 0, source_is_full: false, refused_by: None }
    }

    fn has_timed_out(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() >= self.timeout
    }

    /// At most 50 ms at first, then doubling from 100 ms to 1 s with a jitter of half: all edges of
    /// an origin lose it at the same time.
    fn retry_delay(&self) -> Duration {
        if self.source_is_full {
            // Slots become free one by one, and every waiting edge retries.
            return Duration::from_millis(rand::random_range(MAX_RETRY_DELAY_MS / 2..MAX_RETRY_DELAY_MS * 3 / 2));
        }
        if self.tries <= 1 {
            return Duration::from_millis(rand::random_range(0..FIRST_RETRY_DELAY_MS / 2));
        }
        let delay_ms = (FIRST_RETRY_DELAY_MS << (self.tries - 2).min(8)).min(MAX_RETRY_DELAY_MS);
        Duration::from_millis(rand::random_range(delay_ms / 2..delay_ms * 3 / 2))
    }
}

/// Searches at a time; further viewers of unknown streams get an error at once.
pub(super) const MAX_SEARCHES: usize = 256;
/// Retries before a viewer without a stream gets an error: the registry may name a dead node again.
const MAX_INITIAL_RETRIES: u32 = 2;
const FIRST_RETRY_DELAY_MS: u64 = 100;
const MAX_RETRY_DELAY_MS: u64 = 1_000;
/// Addresses of one node that are tried.
const MAX_ADDRESSES: usize = 4;
/// Key frame requests are sent within a quarter of the ping interval.
const TICKS_PER_PING: u32 = 4;
