//! One pull: reads a stream from another node, once for all viewers, and is its producer here.
//!
//! ```text
//!   requested --> searching --(no node has it)--> ended
//!                     |
//!                   live --(publisher ended it, or `no_viewers_timeout`)--> ended
//!                   |   ^
//!       source lost |   | found again: the same hub stream continues
//!          or moved |   |
//!                   v   |
//!                 searching --(`search_timeout`)--> ended
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_wire::relay::{EndReason, Message, Refusal};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use crate::gateway::relay::disconnect::Disconnect;
use crate::gateway::relay::ingest::{Ingest, Step};
use crate::gateway::relay::link::{Link, LinkError, LinkWriter};
use crate::gateway::relay::owner_check::OwnerCheck;
use crate::gateway::relay::owner_watch::OwnerWatch;
use crate::gateway::relay::pulls::{PullState, Pulls};
use crate::gateway::relay::resolver::{ResolveError, StreamLocation};
use crate::gateway::relay::search::Search;
use crate::hub::{FindError, RelayedStreams};

/// The task that pulls one stream.
pub(super) struct Pull {
    pulls: Arc<Pulls>,
    name: StreamName,
    ingest: Ingest,
    state_tx: watch::Sender<PullState>,
    owner_watch: Arc<OwnerWatch>,
    /// Held until the first source is live.
    search_permit: Option<OwnedSemaphorePermit>,
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
    /// A pull that has not begun. `state_tx` is watched by the viewers that wait for it.
    pub(super) fn new(
        pulls: Arc<Pulls>,
        relayed: &RelayedStreams,
        name: &StreamName,
        state_tx: watch::Sender<PullState>,
        owner_watch: Arc<OwnerWatch>,
        search_permit: OwnedSemaphorePermit,
    ) -> Self {
        let ingest = Ingest::new(relayed.clone(), name.clone());
        Self { pulls, name: name.clone(), ingest, state_tx, owner_watch, search_permit: Some(search_permit) }
    }

    /// Runs until the stream ends or has no viewers.
    pub(super) async fn run(mut self) {
        self.pulls.metrics.pulls.inc();
        let end = self.pull().await;
        self.pulls.upstreams.remove(&self.name);
        self.pulls.metrics.pulls.dec();
        if end == PullEnd::GivenUp {
            self.pulls.metrics.given_up.inc();
        }
        let level = if end == PullEnd::NotFound { log::Level::Debug } else { log::Level::Info };
        log::log!(level, stream = self.name.as_str(), reason:? = end; "relay from an origin ended");
    }

    async fn pull(&mut self) -> PullEnd {
        // Restarted each time a source becomes live.
        let mut search = Search::new(self.pulls.timing.fetch_timeout);
        loop {
            match self.connect_once(&mut search).await {
                Disconnect::NoViewers => return PullEnd::NoViewers,
                Disconnect::EndedByOrigin(EndReason::StreamEnded) => return PullEnd::StreamEnded,
                disconnect @ Disconnect::Unresolved(_) if self.ingest.producer().is_none() => {
                    self.set_search_error(disconnect.find_error());
                    return PullEnd::NotFound;
                }
                disconnect => {
                    self.pulls.upstreams.remove(&self.name);
                    // A full source has the stream: there is nothing to look up.
                    search.source_is_full = matches!(disconnect, Disconnect::Refused(Refusal::Full));
                    self.set_search_error(disconnect.find_error());
                    if !search.source_is_full {
                        self.pulls.resolver.invalidate(&self.name);
                    }
                    if matches!(disconnect, Disconnect::Moved) {
                        search.tries = 0;
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
        let location = match self.pulls.resolver.resolve(&self.name).await {
            Ok(location) => location,
            Err(error) => return Disconnect::Unresolved(error),
        };
        if search.refused_by.as_ref() == Some(&location) {
            // The same nodes would give the same answer.
            return Disconnect::Unresolved(ResolveError::NotPublished);
        }
        let via_edge = location.owner_relays.is_some();
        let last =
            match (self.follow_first(&location.relays, via_edge, &location, search).await, &location.owner_relays) {
                (Disconnect::Refused(Refusal::Full | Refusal::NotFound), Some(owner)) => {
                    self.follow_first(owner, false, &location, search).await
                }
                (last, _) => last,
            };
        if matches!(last, Disconnect::Refused(Refusal::NotFound)) && self.ingest.producer().is_none() {
            search.refused_by = Some(location);
        }
        last
    }

    /// Reads from the first of these relays of `location` that has the stream. If none of them has
    /// it, returns the last answer; if they are several nodes, the answer from which the stream is
    /// most likely to be live.
    async fn follow_first(
        &mut self,
        relays: &[SocketAddr],
        via_edge: bool,
        location: &StreamLocation,
        search: &mut Search,
    ) -> Disconnect {
        let mut result = Disconnect::Refused(Refusal::NotFound);
        let tried = if location.any_of { relays.len() } else { MAX_ADDRESSES };
        for address in relays.iter().copied().take(tried) {
            self.owner_watch.silence().observe(Instant::now());
            let connected = tokio::select! {
                connected = Link::connect(address, &self.pulls.secret, self.pulls.timing.connect_timeout) => connected,
                () = self.owner_watch.wait_moved() => return Disconnect::Moved,
            };
            let next = match connected {
                Ok(link) => {
                    let disconnect = self.follow(link, address, via_edge, location, search).await;
                    self.owner_watch.silence().on_disconnect(Instant::now());
                    match disconnect {
                        refused @ Disconnect::Refused(_) => refused,
                        disconnect => return disconnect,
                    }
                }
                Err(e) => Disconnect::Lost(e.into()),
            };
            if !location.any_of || next.likelihood() >= result.likelihood() {
                result = next;
            }
        }
        result
    }

    /// Reads from this link until it ends, or until the stream resolves to another location.
    async fn follow(
        &mut self,
        link: Link,
        address: SocketAddr,
        via_edge: bool,
        location: &StreamLocation,
        search: &mut Search,
    ) -> Disconnect {
        let Link { mut reader, mut writer, .. } = link;
        let (pulls, name, watch) = (Arc::clone(&self.pulls), self.name.clone(), Arc::clone(&self.owner_watch));
        let timing = pulls.timing;
        let resumes = self.ingest.producer().is_some();
        let subscribe = Message::Subscribe {
            app: name.app().to_owned(),
            stream_id: name.stream_id().to_owned(),
            history: !resumes,
            max_hops: 1 + u8::from(via_edge),
        };
        if let Err(e) = writer.send(&subscribe, timing.silence_timeout).await {
            return Disconnect::Lost(e.into());
        }
        self.ingest.on_connect();
        watch.silence().on_connect(Instant::now());
        let mut owner_check = OwnerCheck::new(&*pulls.resolver, &name, timing.owner_check_interval);
        let mut link_check = LinkCheck::new(Instant::now());
        let mut hops = 1;
        let mut tick = tokio::time::interval(timing.ping_interval / TICKS_PER_PING);
        // After a stop of this process, the ticks that were missed prove nothing about the owner.
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                message = reader.next() => message,
                found = owner_check.next() => {
                    if found != *location {
                        return Disconnect::Moved;
                    }
                    continue;
                }
                () = watch.wait_moved() => {
                    owner_check.on_moved();
                    continue;
                }
                now = tick.tick() => {
                    owner_check.on_silence(self.observe_owner(now), now);
                    if let Some(end) = self.on_tick(&mut link_check, &mut writer, now).await {
                        return end;
                    }
                    continue;
                }
            };
            link_check.last_received = Instant::now();
            let step = match message {
                Ok(message) => {
                    watch.silence().on_message(&message, link_check.last_received);
                    self.ingest.on_message(message)
                }
                Err(e) => Err(e.into()),
            };
            match step {
                Ok(Step::Continue) => {}
                Ok(Step::Accepted { hops: reported_hops }) => {
                    hops = reported_hops;
                }
                Ok(Step::Live) => {
                    self.on_live(address, hops, resumes, search);
                    link_check.last_viewed = Instant::now();
                }
                Ok(Step::Refused(reason)) => return Disconnect::Refused(reason),
                Ok(Step::End(reason)) => return Disconnect::EndedByOrigin(reason),
                Err(e) => return Disconnect::Lost(e),
            }
        }
    }

    /// The silence of the owner; zero if the source does not name it.
    fn observe_owner(&self, now: Instant) -> Duration {
        let mut silence = self.owner_watch.silence();
        silence.observe(now);
        silence.owner(now).map_or(Duration::ZERO, |(_, silence)| silence)
    }

    /// Ends the connection if it is silent or has no viewers; sends key frame requests and pings.
    async fn on_tick(&self, check: &mut LinkCheck, writer: &mut LinkWriter, now: Instant) -> Option<Disconnect> {
        let timing = self.pulls.timing;
        if now.duration_since(check.last_received) > timing.silence_timeout {
            return Some(Disconnect::Lost(LinkError::ReadTimeout(timing.silence_timeout).into()));
        }
        check.ticks += 1;
        if let Some(producer) = self.ingest.producer() {
            if producer.stream().has_consumers() {
                check.last_viewed = now;
            } else if now.duration_since(check.last_viewed) > timing.no_viewers_timeout {
                // If this is not sent, the closed socket has the same effect.
                let _ = writer.send(&Message::End(EndReason::Idle), timing.ping_interval).await;
                return Some(Disconnect::NoViewers);
            }
            if producer.take_key_frame_request() {
                writer.queue_record(|out| Message::KeyFrame.write(out));
            }
        }
        if check.ticks.is_multiple_of(u64::from(TICKS_PER_PING)) {
            if self.ingest.producer().is_some() && now.duration_since(check.last_received) <= timing.ping_interval {
                self.pulls.resolver.confirm(&self.name);
            }
            writer.queue_record(|out| Message::Ping(check.ticks).write(out));
        }
        writer.flush(timing.silence_timeout).await.err().map(|e| Disconnect::Lost(e.into()))
    }

    fn on_live(&mut self, address: SocketAddr, hops: u8, resumes: bool, search: &mut Search) {
        let Some(producer) = self.ingest.producer() else { return };
        self.pulls.upstreams.set(&self.name, hops);
        self.search_permit = None;
        *search = Search::new(self.pulls.timing.search_timeout);
        if resumes {
            self.pulls.metrics.resumed.inc();
        } else {
            self.state_tx.send_replace(PullState::Live(Arc::clone(producer.stream())));
        }
        log::info!(stream = self.name.as_str(), peer:% = address, hops, resumes; "relay from an origin is live");
    }

    /// Sleeps for `delay`, or until the stream has moved; then returns true if the stream has no
    /// viewers.
    async fn sleep_then_is_idle(&self, delay: Duration) -> bool {
        self.owner_watch.silence().observe(Instant::now());
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.owner_watch.wait_moved() => self.pulls.resolver.invalidate(&self.name),
        }
        self.owner_watch.silence().observe(Instant::now());
        // No grace period here: without a source there is nothing to show to new viewers.
        self.ingest.producer().is_some_and(|producer| !producer.stream().has_consumers())
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        let error = self.state_tx.borrow().error();
        if self.ingest.producer().is_none() && error != FindError::AtCapacity {
            self.pulls.failed_lookups().insert(self.name.clone(), error, Instant::now());
        }
        // First the entry, then the stream: a request in between starts a new pull.
        self.pulls.running().remove(&self.name);
        self.state_tx.send_replace(PullState::Ended(error));
    }
}

/// What a pull knows about its connection.
#[derive(Debug)]
struct LinkCheck {
    last_received: Instant,
    last_viewed: Instant,
    ticks: u64,
}

impl LinkCheck {
    fn new(now: Instant) -> Self {
        Self { last_received: now, last_viewed: now, ticks: 0 }
    }
}

/// Retries before a viewer without a stream gets an error: the registry may name a dead node again.
const MAX_INITIAL_RETRIES: u32 = 2;
/// Addresses of one node that are tried.
const MAX_ADDRESSES: usize = 4;
/// Key frame requests are sent within a quarter of the ping interval.
const TICKS_PER_PING: u32 = 4;
