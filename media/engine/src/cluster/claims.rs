//! Claims the streams that are published on this node, and renews and releases the claims.
//!
//! ```text
//!   publish --> granted --> renewed per heartbeat --(lost)--> claimed again --(taken)--> revoked
//!          |--> taken, the owner has it: refused                  ^
//!          |--> taken, the owner lost it: released, then granted  |
//!          '--> registry unreachable: accepted without a claim ---+
//!                 '--> last known owner may still have it: refused
//! ```

use std::sync::Arc;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::documents::{Claim, StreamOffer};
use headwater_api::error::Chain;
use headwater_registry::{Registry, RegistryError, Timing};

use super::member::Cluster;
use super::takeover::LostStream;
use crate::gateway::relay::Ownership;
use crate::hub::{ClaimFuture, PublishError, Stream, StreamOwnership};

/// Removes the entry and releases the claim when the stream ends.
#[derive(Debug)]
struct ClaimGuard<R: Registry + std::fmt::Debug + 'static> {
    cluster: Cluster<R>,
    name: StreamName,
    instance_id: u64,
}

impl<R: Registry + std::fmt::Debug + 'static> Drop for ClaimGuard<R> {
    fn drop(&mut self) {
        let Some(removed) = self.cluster.0.claims.remove(&self.name, self.instance_id) else { return };
        if removed.accepted {
            // This node owned it, so the cached owner is outdated. After a refusal it is still
            // valid.
            self.cluster.0.lookups.remove(&self.name);
        }
        if let (Some(claim), Ok(runtime)) = (removed.claim, tokio::runtime::Handle::try_current()) {
            let cluster = self.cluster.clone();
            self.cluster.0.releases.spawn_on(async move { cluster.release(&claim).await }, &runtime);
        }
    }
}

impl<R: Registry + std::fmt::Debug + 'static> StreamOwnership for Cluster<R> {
    fn claim(&self, stream: &Arc<Stream>) -> ClaimFuture {
        let cluster = self.clone();
        let (name, instance_id) = (stream.name().clone(), stream.instance_id());
        let stream = Arc::clone(stream);
        Box::pin(async move {
            cluster.0.claims.insert(&stream);
            // Dropped on every return except success; then the producer owns it.
            let guard = ClaimGuard { cluster: cluster.clone(), name: name.clone(), instance_id };
            let (mut result, mut watching) = (cluster.claim_with_timeout(&stream, None).await, Vec::new());
            if matches!(result, Err(RegistryError::Taken { .. }))
                && let Some(lost) = cluster.release_lost(&name).await
            {
                watching = lost.watching;
                result = cluster.claim_with_timeout(&stream, None).await;
            }
            match result {
                Ok(claim) => {
                    cluster.0.claims.grant(&name, instance_id, &claim);
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
            cluster.0.claims.accept(&name, instance_id);
            cluster.announce_move(&name, watching);
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
        let query = inner.registry.claim(&inner.identity.incarnation, stream.name(), &offer, previous_epoch);
        match tokio::time::timeout(CLAIM_TIMEOUT, query).await {
            Ok(result) => result,
            Err(_) => Err(RegistryError::Unreachable {
                attempted: format!("claim stream {}", stream.name()),
                servers: "of the registry".to_owned(),
                source: format!("no answer within {} ms", CLAIM_TIMEOUT.as_millis()).into(),
            }),
        }
    }

    /// Releases the claim of an owner that has lost the stream, under exactly the epoch of that
    /// claim; `None` if the name is not free then.
    ///
    /// If the owner does have the stream after all, its next heartbeat reports the claim as lost
    /// and it ends the stream, so that there is one owner.
    async fn release_lost(&self, name: &StreamName) -> Option<LostStream> {
        let Ok(Ok(Some(record))) = tokio::time::timeout(CLAIM_TIMEOUT, self.0.registry.stream(name)).await else {
            return None;
        };
        self.0.lookups.insert(name, Some(record.clone()));
        if record.claim.owner.node == self.0.identity.incarnation.node {
            return None;
        }
        let lost = self.find_lost_stream(&record).await?;
        let claim = record.claim;
        log::info!(stream = name.as_str(), node = claim.owner.node.as_str(); "owner no longer has the stream, taking it over");
        let released = tokio::time::timeout(CLAIM_TIMEOUT, self.0.registry.release(&claim)).await;
        matches!(released, Ok(Ok(true))).then_some(lost)
    }

    /// Decides without the registry: a name without a known owner is accepted, and one that another
    /// node owned only if that node has lost it.
    async fn admit_unclaimed(&self, name: &StreamName) -> Result<(), PublishError> {
        let inner = &self.0;
        let Some(record) = inner.lookups.last_known_owner(name, &inner.identity.incarnation) else { return Ok(()) };
        let ownership = inner.ownership_probe.probe(&record.offer.relay, name).await;
        let node = record.claim.owner.node;
        if has_lost_stream(ownership, inner.lookups.on_probe_result(name, ownership)) {
            log::info!(stream = name.as_str(), node = node.as_str(), ownership:?; "owner no longer has the stream, taking it over");
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
        for claim in self.0.claims.take_granted() {
            self.release(&claim).await;
        }
    }

    /// Renews all claims, and claims the streams that have none or have lost it. Called at each
    /// heartbeat.
    pub(super) async fn renew_all(&self) -> Result<(), RegistryError> {
        let entries = self.0.claims.entries();
        let claims: Vec<Claim> = entries.iter().filter_map(|(_, entry)| entry.claim.clone()).collect();
        let lost = if claims.is_empty() {
            Vec::new()
        } else {
            self.0.registry.renew(&self.0.identity.incarnation, &claims).await?
        };
        for (name, entry) in entries {
            let previous_epoch = entry.claim.as_ref().map(|claim| claim.epoch);
            if !entry.accepted || (entry.claim.is_some() && !lost.contains(&name)) {
                continue;
            }
            let Some(stream) = entry.stream.upgrade().filter(|stream| !stream.is_ended()) else { continue };
            match self.claim_with_timeout(&stream, previous_epoch).await {
                Ok(claim) => {
                    if !self.0.claims.grant(&name, entry.instance_id, &claim) {
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
fn has_lost_stream(ownership: Ownership, unanswered_for: Duration) -> bool {
    match ownership {
        Ownership::NotHeld => true,
        Ownership::Held | Ownership::Unknown => false,
        Ownership::NoAnswer => unanswered_for >= Timing::default().lease,
    }
}

/// For one query of the registry, while a publisher waits.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);
