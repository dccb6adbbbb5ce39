//! Finds the relays that have a stream: asks the registry, or uses its last answer if it is
//! unreachable (`lookup_cache.rs`).

use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::documents::StreamRecord;
use headwater_api::error::Chain;
use headwater_registry::Registry;

use super::member::Cluster;
use crate::gateway::relay::{ResolveError, ResolveFuture, StreamLocation, StreamResolver};

impl<R: Registry + std::fmt::Debug + 'static> StreamResolver for Cluster<R> {
    fn resolve<'a>(&'a self, name: &'a StreamName) -> ResolveFuture<'a> {
        Box::pin(self.resolve_stream(name))
    }

    fn invalidate(&self, name: &StreamName) {
        self.0.lookups.invalidate(name);
        self.0.peers.invalidate();
    }

    fn confirm(&self, name: &StreamName) {
        self.0.lookups.confirm(name);
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    async fn resolve_stream(&self, name: &StreamName) -> Result<StreamLocation, ResolveError> {
        let inner = &self.0;
        // A stream may be published here although the registry does not list it yet.
        if inner.claims.is_accepted(name) {
            return Ok(StreamLocation::direct(inner.identity.relays.clone()));
        }
        let record = match inner.lookups.fresh(name) {
            Some(answer) => answer.record,
            None => self.query_owner(name).await?,
        };
        let record = record.ok_or(ResolveError::NotPublished)?;
        if record.claim.owner.node == inner.identity.incarnation.node {
            // This node owned it, in this or an earlier incarnation, but it is no longer here.
            return Err(ResolveError::NotPublished);
        }
        if let Some(relays) = self.relays_of_group_edge(name, &record.claim.owner.node).await {
            return Ok(StreamLocation { relays, any_of: false, owner_relays: Some(record.offer.relay) });
        }
        Ok(StreamLocation::direct(record.offer.relay))
    }

    /// Asks the registry. If it does not answer, returns the last owner that it named.
    async fn query_owner(&self, name: &StreamName) -> Result<Option<StreamRecord>, ResolveError> {
        match tokio::time::timeout(QUERY_TIMEOUT, self.0.registry.stream(name)).await {
            Ok(Ok(record)) => {
                self.0.lookups.insert(name, record.clone());
                return Ok(record);
            }
            Ok(Err(e)) => {
                log::debug!(stream = name.as_str(), err:% = Chain(&e); "registry could not look up a stream");
            }
            Err(_) => log::debug!(stream = name.as_str(); "registry did not answer the lookup of a stream in time"),
        }
        let last_known = self.0.lookups.stale(name);
        last_known.map(Some).ok_or(ResolveError::RegistryUnreachable)
    }
}

/// For one query of the registry, while a viewer waits.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);
