//! All subjects together, and the durations that every backend follows.

use std::future::Future;
use std::time::Duration;

use crate::{Accounts, Apps, Nodes, RegistryError, Streams, Tokens};

/// A store of documents. Each call is atomic: it takes effect completely, or fails without effect.
///
/// There is one exception: after an error that [is retryable](RegistryError::is_retryable), a write
/// may have taken effect (its answer was lost). Every call may therefore be repeated. The caller
/// owns the retry; a call takes no longer than the store's own timeout.
pub trait Registry: Nodes + Streams + Accounts + Apps + Tokens {
    /// Writes a document and reads it back. Returns the registry's Unix time in milliseconds.
    fn probe(&self) -> impl Future<Output = Result<u64, RegistryError>> + Send;
}

/// Duration of leases, and retention of what has expired. All nodes of a cluster must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Interval between two renewals; a third of [`Timing::lease`], so that one renewal may fail.
    pub heartbeat_interval: Duration,
    /// A node or stream that is not renewed for this duration is dead: others may claim its
    /// streams.
    pub lease: Duration,
    /// How long a dead node stays listed, so that operators can see that it died.
    pub node_retention: Duration,
    /// How long the epoch of a dead stream is remembered. Must exceed any outage that owners of
    /// streams shall survive.
    pub stream_retention: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            node_retention: Duration::from_secs(5 * 60),
            stream_retention: Duration::from_secs(60 * 60),
        }
    }
}
