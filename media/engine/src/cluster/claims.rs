//! The streams that this node owns, or assumes to own.
//!
//! ```text
//!   publish --> granted ----> renewed at each heartbeat --(lost)--> claimed again --(taken)--> revoked
//!          |--> taken, the owner has it: refused                    ^
//!          |--> taken, the owner lost it: released, then granted    |
//!          '--> registry unreachable: accepted without a claim -----+
//!                 '--> last known owner may still have it: refused
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::error::Chain;
use headwater_api::stream::{Claim, StreamOffer};
use headwater_registry::{Registry, RegistryError, Timing};

use super::member::Cluster;
use crate::gateway::relay::Holds;
use crate::hub::{Claiming, Owners, PublishError, Stream};

/// Entries by stream name. The entry of a stream that has ended is removed at once.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<StreamName, Held>>);

#[derive(Debug, Clone)]
struct Held {
    stream: Weak<Stream>,
    epoch_here: u64,
    /// False while the publisher waits for the registry.
    accepted: bool,
    /// `None` until the registry has granted the stream.
    claim: Option<Claim>,
}

impl Claims {
    /// True if the stream is published here. False while the publisher may still be refused, because
    /// its viewers would be disconnected with it.
    pub(super) fn holds(&self, name: &StreamName) -> bool {
        self.lock().get(name).is_some_and(|held| held.accepted)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the publisher as accepted.
    fn accept(&self, name: &StreamName, epoch_here: u64) {
        if let Some(held) = self.lock().get_mut(name).filter(|held| held.epoch_here == epoch_here) {
            held.accepted = true;
        }
    }

    /// Stores a claim; returns false if the stream has ended in the meantime.
    fn grant(&self, name: &StreamName, epoch_here: u64, claim: &Claim) -> bool {
        match self.lock().get_mut(name).filter(|held| held.epoch_here == epoch_here) {
            Some(held) => {
                held.claim = Some(claim.clone());
                true
            }
            None => false,
        }
    }
}

/// Removes the entry and releases the claim when the stream ends.
#[derive(Debug)]
struct Guard<R: Registry + std::fmt::Debug + 'static> {
    cluster: Cluster<R>,
    name: StreamName,
    epoch_here: u64,
}

impl<R: Registry + std::fmt::Debug + 'static> Drop for Guard<R> {
    fn drop(&mut self) {
        let mut held = self.cluster.0.claims.lock();
        if held.get(&self.name).is_none_or(|h| h.epoch_here != self.epoch_here) {
            return;
        }
        let removed = held.remove(&self.name);
        drop(held);
        if removed.as_ref().is_some_and(|h| h.accepted) {
            // This node owned it, so the cached owner is outdated. After a refusal it is still valid.
            self.cluster.0.lookups.forget(&self.name);
        }
        if let (Some(claim), Ok(runtime)) = (removed.and_then(|h| h.claim), tokio::runtime::Handle::try_current()) {
            let cluster = self.cluster.clone();
            self.cluster.0.releases.spawn_on(async move { cluster.release(&claim).await }, &runtime);
        }
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Owners for Cluster<R> {
    fn claim(&self, stream: &Arc<Stream>) -> Claiming {
        let cluster = self.clone();
        let (name, epoch_here) = (stream.name().clone(), stream.epoch());
        let held = Held { stream: Arc::downgrade(stream), epoch_here, accepted: false, claim: None };
        let stream = Arc::clone(stream);
        Box::pin(async move {
            cluster.0.claims.lock().insert(name.clone(), held);
            // Dropped on every return except success; then the producer owns it.
            let guard = Guard { cluster: cluster.clone(), name: name.clone(), epoch_here };
            let claimed = match cluster.claim_in_time(&stream, None).await {
                Err(RegistryError::Taken { .. }) if cluster.is_freed(&name).await => {
                    cluster.claim_in_time(&stream, None).await
                }
                claimed => claimed,
            };
            match claimed {
                Ok(claim) => {
                    cluster.0.claims.grant(&name, epoch_here, &claim);
                }
                Err(RegistryError::Taken { owner, .. }) => {
                    return Err(PublishError::LiveElsewhere { name, node: owner });
                }
                Err(e) => {
                    cluster.admit_unclaimed(&name).await?;
                    // Availability over consistency: another node may turn out to own the stream.
                    log::warn!(stream = name.as_str(), err:% = Chain(&e); "stream accepted without a claim");
                }
            }
            cluster.0.claims.accept(&name, epoch_here);
            Ok(Box::new(guard) as Box<dyn Send + Sync>)
        })
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    async fn claim_in_time(&self, stream: &Stream, resumes: Option<u64>) -> Result<Claim, RegistryError> {
        let inner = &self.0;
        let offer = StreamOffer {
            relay: inner.identity.relay.clone(),
            protocol: stream.protocol().to_owned(),
            started_at_ms: stream.started_at_ms(),
        };
        let claiming = inner.registry.claim(&inner.identity.life, stream.name(), &offer, resumes);
        match tokio::time::timeout(CLAIM, claiming).await {
            Ok(result) => result,
            Err(_) => Err(RegistryError::Unreachable {
                attempted: format!("claim stream {}", stream.name()),
                servers: "of the registry".to_owned(),
                source: format!("no answer within {} ms", CLAIM.as_millis()).into(),
            }),
        }
    }

    /// Releases the claim of an owner that no longer has the stream; true if the name is free now.
    ///
    /// If the owner does have the stream after all, its next heartbeat reports the claim as lost and it
    /// ends the stream, so that there is one owner.
    async fn is_freed(&self, name: &StreamName) -> bool {
        let Ok(Ok(Some(record))) = tokio::time::timeout(CLAIM, self.0.registry.stream(name)).await else {
            return false;
        };
        self.0.lookups.put(name, Some(record.clone()));
        let claim = record.claim;
        if claim.owner.node == self.0.identity.life.node
            || self.0.owners.ask(&record.offer.relay, name).await != Holds::No
        {
            return false;
        }
        log::info!(stream = name.as_str(), node = claim.owner.node.as_str(); "owner no longer has the stream, taking it over");
        matches!(tokio::time::timeout(CLAIM, self.0.registry.release(&claim)).await, Ok(Ok(true)))
    }

    /// Decides without the registry: a name without a known owner is accepted, and one that another
    /// node owned only if that node has lost it.
    async fn admit_unclaimed(&self, name: &StreamName) -> Result<(), PublishError> {
        let inner = &self.0;
        let Some(known) = inner.lookups.known_owner(name, &inner.identity.life) else { return Ok(()) };
        let holds = inner.owners.ask(&known.offer.relay, name).await;
        let node = known.claim.owner.node;
        if is_gone(holds, inner.lookups.on_word(name, holds)) {
            log::info!(stream = name.as_str(), node = node.as_str(), holds:?; "owner no longer has the stream, taking it over");
            return Ok(());
        }
        Err(PublishError::LiveElsewhere { name: name.clone(), node })
    }

    async fn release(&self, claim: &Claim) {
        if let Err(e) = self.0.registry.release(claim).await {
            log::warn!(stream = claim.name.as_str(), err:% = Chain(&e); "could not release a stream, its lease will expire");
        }
    }

    pub(super) async fn release_all(&self) {
        // `take`: a guard that is dropped later must not release the claim again.
        let claims: Vec<Claim> = self.0.claims.lock().values_mut().filter_map(|held| held.claim.take()).collect();
        for claim in &claims {
            self.release(claim).await;
        }
    }

    /// Renews all claims, and claims the streams that have none or have lost it. Called at each
    /// heartbeat.
    pub(super) async fn renew_all(&self) -> Result<(), RegistryError> {
        let held: Vec<(StreamName, Held)> =
            self.0.claims.lock().iter().map(|(name, held)| (name.clone(), held.clone())).collect();
        let claims: Vec<Claim> = held.iter().filter_map(|(_, held)| held.claim.clone()).collect();
        let lost =
            if claims.is_empty() { Vec::new() } else { self.0.registry.renew(&self.0.identity.life, &claims).await? };
        for (name, held) in held {
            let resumes = held.claim.as_ref().map(|claim| claim.epoch);
            if !held.accepted || (held.claim.is_some() && !lost.contains(&name)) {
                continue;
            }
            let Some(stream) = held.stream.upgrade().filter(|stream| !stream.is_ended()) else { continue };
            match self.claim_in_time(&stream, resumes).await {
                Ok(claim) => {
                    if !self.0.claims.grant(&name, held.epoch_here, &claim) {
                        // The stream ended while it was being claimed.
                        self.release(&claim).await;
                    }
                }
                Err(RegistryError::Taken { owner, .. }) => {
                    log::warn!(stream = name.as_str(), node = owner.as_str(); "another node owns the stream now, ending it here");
                    stream.revoke();
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// True if the owner of a stream has lost it, judged without the registry: it denies having the
/// stream, or its probes were unanswered for a whole lease. The owner cannot renew its lease during
/// that time either, so its answers are the only evidence.
fn is_gone(holds: Holds, silent: Duration) -> bool {
    match holds {
        Holds::No => true,
        Holds::Yes | Holds::Unknown => false,
        Holds::Silent => silent >= Timing::default().lease,
    }
}

/// For one query of the registry, while a publisher waits.
const CLAIM: Duration = Duration::from_secs(2);
