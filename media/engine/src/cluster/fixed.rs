//! Resolves streams to a fixed list of relays, for a few nodes without a shared registry.

use std::net::SocketAddr;

use headwater_api::StreamName;

use crate::gateway::relay::{ResolveError, ResolveFuture, StreamLocation, StreamResolver};

/// Returns the same relays for every stream.
#[derive(Debug)]
pub struct StaticResolver(Vec<SocketAddr>);

impl StaticResolver {
    /// `relays` are tried in this order.
    pub fn new(relays: Vec<SocketAddr>) -> Self {
        Self(relays)
    }
}

impl StreamResolver for StaticResolver {
    fn resolve<'a>(&'a self, _: &'a StreamName) -> ResolveFuture<'a> {
        let any = (!self.0.is_empty()).then(|| StreamLocation::any_of(self.0.clone()));
        Box::pin(async move { any.ok_or(ResolveError::NotPublished) })
    }

    fn invalidate(&self, _: &StreamName) {}

    fn confirm(&self, _: &StreamName) {}
}
