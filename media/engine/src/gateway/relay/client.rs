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
use tokio::sync::watch;
use tokio::time::Instant;

use crate::gateway::relay::ingest::{Intake, IntakeError, Step};
use crate::gateway::relay::link::{Link, LinkError};
use crate::gateway::relay::metrics::Metrics;
use crate::gateway::relay::resolver::Locate;
use crate::gateway::relay::upstreams::Upstreams;
use crate::hub::{Elsewhere, Fetching, Hub, Missing, Stream};
use crate::runtime::worker_pool::Home;

/// Timeouts and intervals of the edge side.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For connecting and the handshake, per address.
    pub dial: Duration,
    /// Interval of pings.
    pub ping: Duration,
    /// A source that sends nothing for this duration is lost.
    pub silence: Duration,
    /// A pull ends after this duration without viewers.
    pub grace: Duration,
    /// How long a new source is searched for after one was lost, while viewers wait. Longer than the
    /// lease of a stream.
    pub linger: Duration,
    /// How long a viewer waits for a stream that is not here yet.
    pub fetch: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(1),
            ping: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            grace: Duration::from_secs(5),
            linger: Duration::from_secs(20),
            fetch: Duration::from_secs(5),
        }
    }
}

/// Pulls streams from other nodes; clones share the pulls.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    secret: ClusterSecret,
    locate: Arc<dyn Locate>,
    timing: Timing,
    upstreams: Upstreams,
    metrics: Metrics,
    /// One entry per running pull, including those still searching. Bounded by the hub's limits.
    pulls: Mutex<HashMap<StreamName, watch::Receiver<State>>>,
}

/// State of a pull, watched by the viewers that wait for it.
#[derive(Debug, Clone)]
enum State {
    /// No source yet; with the error to report if the viewer stops waiting.
    Looking(Missing),
    Here(Arc<Stream>),
    Gone(Missing),
}

impl State {
    /// The error for a viewer that stops waiting.
    fn missing(&self) -> Missing {
        match self {
            Self::Looking(missing) | Self::Gone(missing) => *missing,
            Self::Here(_) => Missing::Unknown,
        }
    }
}

impl Relay {
    /// A client without pulls. `resolver` finds the nodes that have a stream.
    pub fn new(secret: ClusterSecret, locate: Arc<dyn Locate>, timing: Timing) -> Self {
        Self(Arc::new(Inner {
            secret,
            locate,
            timing,
            upstreams: Upstreams::default(),
            metrics: Metrics::default(),
            pulls: Mutex::default(),
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
    pub async fn greet(&self, address: SocketAddr) -> Result<(), String> {
        let greeted = Link::dial(address, &self.0.secret, self.0.timing.dial).await;
        greeted.map(drop).map_err(|e| Chain(&e).to_string())
    }

    pub(crate) fn secret(&self) -> &ClusterSecret {
        &self.0.secret
    }

    pub(super) fn upstreams(&self) -> &Upstreams {
        &self.0.upstreams
    }
}

impl Elsewhere for Relay {
    fn fetch(&self, hub: &Hub, name: &StreamName) -> Fetching {
        let mut state = self.0.state(hub, name);
        let patience = self.0.timing.fetch;
        Box::pin(async move {
            let settled = state.wait_for(|state| !matches!(state, State::Looking(_)));
            // The search may continue; this viewer stops waiting.
            let _ = tokio::time::timeout(patience, settled).await;
            let state = state.borrow();
            match &*state {
                State::Here(stream) => Ok(Arc::clone(stream)),
                State::Gone(missing) | State::Looking(missing) => Err(*missing),
            }
        })
    }
}

impl Inner {
    /// Subscribes to the running pull of this stream, or spawns one.
    fn state(self: &Arc<Self>, hub: &Hub, name: &StreamName) -> watch::Receiver<State> {
        let mut pulls = self.lock();
        if let Some(running) = pulls.get(name) {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(State::Looking(Missing::Unknown));
        pulls.insert(name.clone(), receiver.clone());
        drop(pulls);
        let pull = Pull {
            inner: Arc::clone(self),
            intake: Intake::new(hub.clone(), name.clone()),
            name: name.clone(),
            state: sender,
        };
        // On the worker thread of the first viewer, where the stream is also packaged.
        Home::here().spawn(pull.run());
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, watch::Receiver<State>>> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that pulls one stream.
struct Pull {
    inner: Arc<Inner>,
    name: StreamName,
    intake: Intake,
    state: watch::Sender<State>,
}

/// Why a connection to a source ended.
#[derive(Debug)]
enum Over {
    /// The connection failed: search for another source.
    Lost(IntakeError),
    Said(EndReason),
    Refused(Refusal),
    /// No node is known to have the stream.
    Nowhere,
    NoViewers,
}

/// Why a pull ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Unknown,
    Publisher,
    NoViewers,
    GivenUp,
}

impl Pull {
    async fn run(mut self) {
        self.inner.metrics.pulls.inc();
        let end = self.pull().await;
        self.inner.upstreams.lose(&self.name);
        self.inner.metrics.pulls.dec();
        if end == End::GivenUp {
            self.inner.metrics.given_up.inc();
        }
        let level = if end == End::Unknown { log::Level::Debug } else { log::Level::Info };
        log::log!(level, stream = self.name.as_str(), reason:? = end; "relay from an origin ended");
    }

    async fn pull(&mut self) -> End {
        // Set while there is no source: since when, and how often one was tried.
        let mut search = Search::new(self.inner.timing.fetch);
        loop {
            match self.connect_once(&mut search).await {
                Over::NoViewers => return End::NoViewers,
                Over::Said(EndReason::Stream) => return End::Publisher,
                Over::Nowhere if self.intake.producer().is_none() => return End::Unknown,
                over => {
                    self.inner.upstreams.lose(&self.name);
                    // A full source has the stream: there is nothing to look up.
                    search.is_full = matches!(over, Over::Refused(Refusal::Full));
                    let known = if search.is_full { Missing::Full } else { Missing::Unknown };
                    self.state.send_if_modified(|state| match state {
                        State::Looking(before) => std::mem::replace(before, known) != known,
                        State::Here(_) | State::Gone(_) => false,
                    });
                    if !search.is_full {
                        self.inner.locate.doubt(&self.name);
                    }
                    log::info!(stream = self.name.as_str(), reason = over.sentence().as_str(); "relay source lost, searching");
                }
            }
            let is_here = self.intake.producer().is_some();
            // A viewer without a stream gets an error soon; viewers of a live stream wait longer.
            let is_hopeless = !is_here && !search.is_full && search.tries > FIRST_TRIES;
            if is_hopeless || search.is_over() {
                return if is_here { End::GivenUp } else { End::Unknown };
            }
            if self.is_idle_during(search.pause()).await {
                return End::NoViewers;
            }
        }
    }

    /// Finds a source and reads from it until the connection ends.
    async fn connect_once(&mut self, search: &mut Search) -> Over {
        search.tries += 1;
        let Some(located) = self.inner.locate.locate(&self.name).await else {
            return Over::Nowhere;
        };
        let last = self.try_each(located.relays, located.beyond.is_some(), search).await;
        match (last, located.beyond) {
            (Over::Refused(Refusal::Full), Some(beyond)) => self.try_each(beyond, false, search).await,
            (last, _) => last,
        }
    }

    /// Reads from the first of these relays that has the stream.
    async fn try_each(&mut self, relays: Vec<SocketAddr>, through: bool, search: &mut Search) -> Over {
        let mut last = Over::Refused(Refusal::NotFound);
        for address in relays.into_iter().take(MAX_ADDRESSES) {
            match Link::dial(address, &self.inner.secret, self.inner.timing.dial).await {
                Ok(link) => {
                    last = self.follow(link, address, through, search).await;
                    if !matches!(last, Over::Refused(_)) {
                        return last;
                    }
                }
                Err(e) => last = Over::Lost(e.into()),
            }
        }
        last
    }

    async fn follow(&mut self, link: Link, address: SocketAddr, through: bool, search: &mut Search) -> Over {
        let Link { mut incoming, mut outgoing } = link;
        let timing = self.inner.timing;
        let resumes = self.intake.producer().is_some();
        let wish = Message::Subscribe {
            app: self.name.app().to_owned(),
            stream_id: self.name.stream_id().to_owned(),
            history: !resumes,
            reach: 1 + u8::from(through),
        };
        if let Err(e) = outgoing.say(&wish, timing.silence).await {
            return Over::Lost(e.into());
        }
        self.intake.connect();
        let mut hops = 1;
        let mut tick = tokio::time::interval(timing.ping / TICKS_PER_PING);
        let (mut heard, mut watched, mut ticks) = (Instant::now(), Instant::now(), 0_u64);
        loop {
            let message = tokio::select! {
                message = incoming.next() => message,
                now = tick.tick() => {
                    if now.duration_since(heard) > timing.silence {
                        return Over::Lost(LinkError::Silent(timing.silence).into());
                    }
                    ticks += 1;
                    if let Some(producer) = self.intake.producer() {
                        if producer.stream().is_read() {
                            watched = now;
                        } else if now.duration_since(watched) > timing.grace {
                            // If this is not sent, the closed socket has the same effect.
                            let _ = outgoing.say(&Message::End(EndReason::Idle), timing.ping).await;
                            return Over::NoViewers;
                        }
                        if producer.take_key_frame_request() {
                            outgoing.record(|out| Message::KeyFrame.write(out));
                        }
                    }
                    if ticks.is_multiple_of(u64::from(TICKS_PER_PING)) {
                        if self.intake.producer().is_some() && now.duration_since(heard) <= timing.ping {
                            self.inner.locate.flows(&self.name);
                        }
                        outgoing.record(|out| Message::Ping(ticks).write(out));
                    }
                    match outgoing.flush(timing.silence).await {
                        Ok(()) => continue,
                        Err(e) => return Over::Lost(e.into()),
                    }
                }
            };
            heard = Instant::now();
            let step = match message {
                Ok(message) => self.intake.on_message(message),
                Err(e) => Err(e.into()),
            };
            match step {
                Ok(Step::Go) => {}
                Ok(Step::Accepted { hops: said }) => {
                    hops = said;
                }
                Ok(Step::Live) => {
                    self.on_live(address, hops, resumes, search);
                    watched = Instant::now();
                }
                Ok(Step::Refused(reason)) => return Over::Refused(reason),
                Ok(Step::End(reason)) => return Over::Said(reason),
                Err(e) => return Over::Lost(e),
            }
        }
    }

    fn on_live(&self, address: SocketAddr, hops: u8, resumes: bool, search: &mut Search) {
        let Some(producer) = self.intake.producer() else { return };
        self.inner.upstreams.set(&self.name, hops);
        *search = Search::new(self.inner.timing.linger);
        if resumes {
            self.inner.metrics.resumed.inc();
        } else {
            self.state.send_replace(State::Here(Arc::clone(producer.stream())));
        }
        log::info!(stream = self.name.as_str(), peer:% = address, hops, resumes; "relay from an origin is live");
    }

    /// Sleeps for `delay`; then returns true if the stream has no viewers.
    async fn is_idle_during(&self, pause: Duration) -> bool {
        tokio::time::sleep(pause).await;
        // No grace period here: without a source there is nothing to show to new viewers.
        self.intake.producer().is_some_and(|producer| !producer.stream().is_read())
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        // First the entry, then the stream: a request in between starts a new pull.
        self.inner.lock().remove(&self.name);
        let missing = self.state.borrow().missing();
        self.state.send_replace(State::Gone(missing));
    }
}

impl Over {
    fn sentence(&self) -> String {
        match self {
            Self::Lost(e) => Chain(e).to_string(),
            Self::Said(EndReason::Draining) => "the origin is draining".to_owned(),
            Self::Said(EndReason::Moved) => "another node owns the stream".to_owned(),
            Self::Said(_) => "the origin ended the stream".to_owned(),
            Self::Refused(Refusal::Full) => "the node that has the stream is at its limit of edges".to_owned(),
            Self::Refused(reason) => format!("no node has the stream ({reason:?})"),
            Self::Nowhere => "no node is known to have the stream".to_owned(),
            Self::NoViewers => "no viewers".to_owned(),
        }
    }
}

/// Progress of the search for a source.
#[derive(Debug)]
struct Search {
    patience: Duration,
    /// When the search began; set by the first failure.
    since: Option<Instant>,
    tries: u32,
    /// The last source has the stream, but accepts no more edges.
    is_full: bool,
}

impl Search {
    fn new(patience: Duration) -> Self {
        Self { patience, since: None, tries: 0, is_full: false }
    }

    fn is_over(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() >= self.patience
    }

    /// At most 50 ms at first, then doubling from 100 ms to 1 s with a jitter of half: all edges of an
    /// origin lose it at the same time.
    fn pause(&self) -> Duration {
        if self.is_full {
            // Slots become free one by one, and every waiting edge retries.
            return Duration::from_millis(rand::random_range(MAX_PAUSE_MS / 2..MAX_PAUSE_MS * 3 / 2));
        }
        if self.tries <= 1 {
            return Duration::from_millis(rand::random_range(0..FIRST_PAUSE_MS / 2));
        }
        let pause_ms = (FIRST_PAUSE_MS << (self.tries - 2).min(8)).min(MAX_PAUSE_MS);
        Duration::from_millis(rand::random_range(pause_ms / 2..pause_ms * 3 / 2))
    }
}

/// Retries before a viewer without a stream gets an error: the registry may name a dead node again.
const FIRST_TRIES: u32 = 2;
const FIRST_PAUSE_MS: u64 = 100;
const MAX_PAUSE_MS: u64 = 1_000;
/// Addresses that are tried per source.
const MAX_ADDRESSES: usize = 4;
/// Key frame requests are sent within a quarter of the ping interval.
const TICKS_PER_PING: u32 = 4;
