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
use headwater_api::documents::{Claim, StreamOffer};
use headwater_registry::{Registry, RegistryError, Timing};

use super::member::Cluster;
use crate::gateway::relay::Ownership;
use crate::hub::{ClaimFuture, StreamOwnership, PublishError, Stream};

/// Entries by stream name. The entry of a stream that has ended is removed at once.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<StreamName, ClaimEntry>>);

#[derive(Debug, Clone)]
struct ClaimEntry {
    stream: Weak<Stream>,
    local_epoch: u64,
    /// False while the publisher waits for the registry.
    accepted: bool,
    /// `None` until the registry has granted the stream.
    claim: Option<Claim>,
}

impl Claims {
    /// True if the stream is published here. False while the publisher may still be refused, because
    /// its viewers would be disconnected with it.
    pub(super) fn is_accepted(&self, name: &StreamName) -> bool {
        self.lock().get(name).is_some_and(|held| held.accepted)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, ClaimEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the publisher as accepted.
    fn accept(&self, name: &StreamName, local_epoch: u64) {
        if let Some(held) = self.lock().get_mut(name).filter(|held| held.local_epoch == local_epoch) {
            held.accepted = true;
        }
    }

    /// Stores a claim; returns false if the stream has ended in the meantime.
    fn grant(&self, name: &StreamName, local_epoch: u64, claim: &Claim) -> bool {
        match self.lock().get_mut(name).filter(|held| held.local_epoch == local_epoch) {
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
struct ClaimGuard<R: Registry + std::fmt::Debug + 'static> {
    cluster: Cluster<R>,
    name: StreamName,
    epoch_here: u64,
}

impl<R: Registry + std::fmt::Debug + 'static> Drop for ClaimGuard<R> {
    fn drop(&mut self) {
        let mut held = self.cluster.0.claims.lock();
        if held.get(&self.name).is_none_or(|h| h.local_epoch != self.epoch_here) {
            return;
        }
        let removed = held.remove(&self.name);
        drop(held);
        if removed.as_ref().is_some_and(|h| h.accepted) {
            // This node owned it, so the cached owner is outdated. After a refusal it is still valid.
            self.cluster.0.lookups.remove(&self.name);
        }
        if let (Some(claim), Ok(runtime)) = (removed.and_then(|h| h.claim), tokio::runtime::Handle::try_current()) {
            let cluster = self.cluster.clone();
            self.cluster.0.releases.spawn_on(async move { cluster.release(&claim).await }, &runtime);
        }
    }
}

impl<R: Registry + std::fmt::Debug + 'static> StreamOwnership for Cluster<R> {
    fn claim(&self, stream: &Arc<Stream>) -> ClaimFuture {
        let cluster = self.clone();
        let (name, local_epoch) = (stream.name().clone(), stream.instance_id());
        let held = ClaimEntry { stream: Arc::downgrade(stream), local_epoch, accepted: false, claim: None };
        let stream = Arc::clone(stream);
        Box::pin(async move {
            cluster.0.claims.lock().insert(name.clone(), held);
            // Dropped on every return except success; then the producer owns it.
            let guard = ClaimGuard { cluster: cluster.clone(), name: name.clone(), epoch_here: local_epoch };
            let claimed = match cluster.claim_with_timeout(&stream, None).await {
                Err(RegistryError::Taken { .. }) if cluster.release_abandoned(&name).await => {
                    cluster.claim_with_timeout(&stream, None).await
                }
                claimed => claimed,
            };
            match claimed {
                Ok(claim) => {
                    cluster.0.claims.grant(&name, local_epoch, &claim);
                }
                Err(RegistryError::Taken { owner, .. }) => {
                    return Err(PublishError::LiveOnOtherNode { name, node: owner });
                }
                Err(e) => {
                    cluster.admit_unclaimed(&name).await?;
                    // Availability over consistency: another node may turn out to own the stream.
                    log::warn!(stream = name.as_str(), err:% = Chain(&e); "stream accepted without a claim");
                }
            }
            cluster.0.claims.accept(&name, local_epoch);
            Ok(Box::new(guard) as Box<dyn Send + Sync>)
        })
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    async fn claim_with_timeout(&self, stream: &Stream, previous_epoch: Option<u64>) -> Result<Claim, RegistryError> {
        let inner = &self.0;
        let offer = StreamOffer {
            relay: inner.identity.relays.clone(),
            protocol: stream.protocol().to_owned(),
            started_at_ms: stream.started_at_ms(),
        };
        let claiming = inner.registry.claim(&inner.identity.life, stream.name(), &offer, previous_epoch);
        match tokio::time::timeout(CLAIM_TIMEOUT, claiming).await {
            Ok(result) => result,
            Err(_) => Err(RegistryError::Unreachable {
                attempted: format!("claim stream {}", stream.name()),
                servers: "of the registry".to_owned(),
                source: format!("no answer within {} ms", CLAIM_TIMEOUT.as_millis()).into(),
            }),
        }
    }

    /// Releases the claim of an owner that no longer has the stream; true if the name is free now.
    ///
    /// If the owner does have the stream after all, its next heartbeat reports the claim as lost and it
    /// ends the stream, so that there is one owner.
    async fn release_abandoned(&self, name: &StreamName) -> bool {
        let Ok(Ok(Some(record))) = tokio::time::timeout(CLAIM_TIMEOUT, self.0.registry.stream(name)).await else {
            return false;
        };
        self.0.lookups.insert(name, Some(record.clone()));
        let claim = record.claim;
        if claim.owner.node == self.0.identity.life.node
            || self.0.owners.probe(&record.offer.relay, name).await != Ownership::NotHeld
        {
            return false;
        }
        log::info!(stream = name.as_str(), node = claim.owner.node.as_str(); "owner no longer has the stream, taking it over");
        matches!(tokio::time::timeout(CLAIM_TIMEOUT, self.0.registry.release(&claim)).await, Ok(Ok(true)))
    }

    /// Decides without the registry: a name without a known owner is accepted, and one that another
    /// node owned only if that node has lost it.
    async fn admit_unclaimed(&self, name: &StreamName) -> Result<(), PublishError> {
        let inner = &self.0;
        let Some(known) = inner.lookups.last_known_owner(name, &inner.identity.life) else { return Ok(()) };
        let holds = inner.owners.probe(&known.offer.relay, name).await;
        let node = known.claim.owner.node;
        if has_lost_stream(holds, inner.lookups.on_probe_result(name, holds)) {
            log::info!(stream = name.as_str(), node = node.as_str(), holds:?; "owner no longer has the stream, taking it over");
            return Ok(());
        }
        Err(PublishError::LiveOnOtherNode { name: name.clone(), node })
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
        let held: Vec<(StreamName, ClaimEntry)> =
            self.0.claims.lock().iter().map(|(name, held)| (name.clone(), held.clone())).collect();
        let claims: Vec<Claim> = held.iter().filter_map(|(_, held)| held.claim.clone()).collect();
        let lost =
            if claims.is_empty() { Vec::new() } else { self.0.registry.renew(&self.0.identity.life, &claims).await? };
        for (name, held) in held {
            let previous_epoch = held.claim.as_ref().map(|claim| claim.epoch);
            if !held.accepted || (held.claim.is_some() && !lost.contains(&name)) {
                continue;
            }
            let Some(stream) = held.stream.upgrade().filter(|stream| !stream.is_ended()) else { continue };
            match self.claim_with_timeout(&stream, previous_epoch).await {
                Ok(claim) => {
                    if !self.0.claims.grant(&name, held.local_epoch, &claim) {
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
fn has_lost_stream(holds: Ownership, unanswered_for: Duration) -> bool {
    match holds {
        Ownership::NotHeld => true,
        Ownership::Held | Ownership::Unknown => false,
        Ownership::NoAnswer => unanswered_for >= Timing::default().lease,
    }
}

/// For one query of the registry, while a publisher waits.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);
