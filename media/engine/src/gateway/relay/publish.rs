//! The edge: pulls a stream that lives elsewhere and is its producer here, once for all viewers.
//!
//! ```text
//!   asked for --> looking --(nobody has it)--> gone
//!                    |
//!                 flowing --(publisher ended it, or no viewers for `grace`)--> gone
//!                  |   ^
//!           source lost |
//!                  v   | found again: the same hub stream goes on
//!                searching --(nothing for `linger`)--> gone
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

use super::intake::{Intake, IntakeError, Step};
use super::link::{Link, LinkError};
use super::locate::Locate;
use super::metrics::Metrics;
use super::upstreams::Upstreams;
use crate::hub::{Elsewhere, Fetching, Hub, Missing, Stream};
use crate::lanes::Home;

/// How patient an edge is.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For a connection and its handshake, per address.
    pub dial: Duration,
    /// Between two pings.
    pub ping: Duration,
    /// A source that was silent for so long is lost.
    pub silence: Duration,
    /// Without viewers for so long, a pull ends.
    pub grace: Duration,
    /// So long a source is searched for after it was lost, with the viewers waiting. Longer than the lease of a stream.
    pub linger: Duration,
    /// So long a viewer waits for a stream that is not here yet.
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

/// The pulling side; clones share it.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    secret: ClusterSecret,
    locate: Arc<dyn Locate>,
    timing: Timing,
    upstreams: Upstreams,
    metrics: Metrics,
    /// One entry per pull that runs; bounded by the hub's limit on streams, and by those that are being looked for.
    pulls: Mutex<HashMap<StreamName, watch::Receiver<State>>>,
}

/// What those who wait for a stream see.
#[derive(Debug, Clone)]
enum State {
    /// With what is known of it so far.
    Looking(Missing),
    Here(Arc<Stream>),
    Gone(Missing),
}

impl State {
    /// Why a viewer who will not wait gets nothing.
    fn missing(&self) -> Missing {
        match self {
            Self::Looking(missing) | Self::Gone(missing) => *missing,
            Self::Here(_) => Missing::Unknown,
        }
    }
}

impl Relay {
    /// Pulls nothing yet.
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

    /// What this room counts.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Connects to another node's relay and lets both prove that they know the secret; says what is wrong if that fails.
    ///
    /// # Errors
    /// One sentence.
    pub async fn greet(&self, address: SocketAddr) -> Result<(), String> {
        let greeted = Link::dial(address, &self.0.secret, self.0.timing.dial).await;
        greeted.map(drop).map_err(|e| Chain(&e).to_string())
    }

    pub(super) fn secret(&self) -> &ClusterSecret {
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
            // It may still be looked for then; this viewer does not wait any longer.
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
    /// The state of the pull that runs, or of a new one.
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
        // Near the viewer who asked for it: what is made of the stream is made there, too.
        Home::here().spawn(pull.run());
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, watch::Receiver<State>>> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task of one stream.
struct Pull {
    inner: Arc<Inner>,
    name: StreamName,
    intake: Intake,
    state: watch::Sender<State>,
}

/// Why a connection is over.
#[derive(Debug)]
enum Over {
    /// Look for another source.
    Lost(IntakeError),
    Said(EndReason),
    Refused(Refusal),
    /// Nobody is known to have it.
    Nowhere,
    NoViewers,
}

/// Why a stream is over.
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
                    // One that is full has it: there is nothing to look up.
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
            // A viewer who has nothing yet gets an answer soon; those who watch already are worth some patience.
            let is_hopeless = !is_here && !search.is_full && search.tries > FIRST_TRIES;
            if is_hopeless || search.is_over() {
                return if is_here { End::GivenUp } else { End::Unknown };
            }
            if self.is_idle_during(search.pause()).await {
                return End::NoViewers;
            }
        }
    }

    /// Finds a source and follows it until it is over.
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

    /// Follows the first of these relays that has the stream.
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
                            // It hears it from the closed socket too.
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
                Ok(Step::Refused(why)) => return Over::Refused(why),
                Ok(Step::End(why)) => return Over::Said(why),
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

    /// Pauses; true if nobody watches any more.
    async fn is_idle_during(&self, pause: Duration) -> bool {
        tokio::time::sleep(pause).await;
        // Viewers who come and go while there is nothing to see are not waited for.
        self.intake.producer().is_some_and(|producer| !producer.stream().is_read())
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        // First the entry, then the stream: whoever asks in between begins a new pull.
        self.inner.lock().remove(&self.name);
        let missing = self.state.borrow().missing();
        self.state.send_replace(State::Gone(missing));
    }
}

impl Over {
    fn sentence(&self) -> String {
        match self {
            Self::Lost(e) => Chain(e).to_string(),
            Self::Said(EndReason::Draining) => "the origin drains".to_owned(),
            Self::Said(EndReason::Moved) => "the stream is another node's now".to_owned(),
            Self::Said(_) => "the origin ended it".to_owned(),
            Self::Refused(Refusal::Full) => "the node that has it serves as many edges as it may".to_owned(),
            Self::Refused(why) => format!("no node has it ({why:?})"),
            Self::Nowhere => "no node is known to have it".to_owned(),
            Self::NoViewers => "no viewers".to_owned(),
        }
    }
}

/// The search for a source.
#[derive(Debug)]
struct Search {
    patience: Duration,
    /// Set by the first failure.
    since: Option<Instant>,
    tries: u32,
    /// The last source has the stream and no place.
    is_full: bool,
}

impl Search {
    fn new(patience: Duration) -> Self {
        Self { patience, since: None, tries: 0, is_full: false }
    }

    fn is_over(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() >= self.patience
    }

    /// Nothing at first, then doubling up to a second, each a random half more or less: edges lose an origin all at once.
    fn pause(&self) -> Duration {
        if self.is_full {
            // Places come free one by one; all who want one ask.
            return Duration::from_millis(rand::random_range(MAX_PAUSE_MS / 2..MAX_PAUSE_MS * 3 / 2));
        }
        if self.tries <= 1 {
            return Duration::from_millis(rand::random_range(0..FIRST_PAUSE_MS / 2));
        }
        let pause_ms = (FIRST_PAUSE_MS << (self.tries - 2).min(8)).min(MAX_PAUSE_MS);
        Duration::from_millis(rand::random_range(pause_ms / 2..pause_ms * 3 / 2))
    }
}

/// The answer of a registry that has lost a node may name it once more.
const FIRST_TRIES: u32 = 2;
const FIRST_PAUSE_MS: u64 = 100;
const MAX_PAUSE_MS: u64 = 1_000;
/// Addresses of one source at most.
const MAX_ADDRESSES: usize = 4;
/// Wishes for key frames leave within a quarter of this.
const TICKS_PER_PING: u32 = 4;
