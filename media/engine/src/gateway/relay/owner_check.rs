//! Resolves a stream again while its source is connected, because its owner may have changed.
//!
//! Must not know connections.

use std::time::Duration;

use headwater_api::StreamName;
use tokio::time::Instant;

use crate::gateway::relay::resolver::{ResolveFuture, StreamLocation, StreamResolver};

/// At most one lookup at a time.
pub(super) struct OwnerCheck<'a> {
    resolver: &'a dyn StreamResolver,
    name: &'a StreamName,
    interval: Duration,
    last: Option<Instant>,
    running: Option<ResolveFuture<'a>>,
}

impl<'a> OwnerCheck<'a> {
    /// `interval` is the silence after which the stream is resolved, and the time between two such
    /// lookups.
    pub(super) fn new(resolver: &'a dyn StreamResolver, name: &'a StreamName, interval: Duration) -> Self {
        Self { resolver, name, interval, last: None, running: None }
    }

    /// Starts a lookup if the owner has been silent for the interval.
    pub(super) fn on_silence(&mut self, silence: Duration, now: Instant) {
        let is_due = self.last.is_none_or(|last| now.duration_since(last) >= self.interval);
        if silence >= self.interval && is_due && self.running.is_none() {
            self.last = Some(now);
            self.running = Some(self.resolver.resolve(self.name));
        }
    }

    /// Starts a lookup after a peer has reported another owner. A cached answer does not count.
    pub(super) fn on_moved(&mut self) {
        self.resolver.invalidate(self.name);
        self.running = Some(self.resolver.resolve(self.name));
    }

    /// Waits for the result of a lookup: the nodes that have the stream. Cancel-safe.
    pub(super) async fn next(&mut self) -> StreamLocation {
        loop {
            let Some(running) = &mut self.running else { return std::future::pending().await };
            let found = running.await;
            self.running = None;
            // Between two owners there may be none for a moment.
            if let Ok(location) = found {
                return location;
            }
        }
    }
}
