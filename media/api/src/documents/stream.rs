//! Streams: which node owns a live stream.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::NodeIncarnation;
use crate::StreamName;

/// What the owner of a stream declares when it claims the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOffer {
    /// Addresses of the owner's relay, from which edges pull the stream, best first.
    pub relay: Vec<SocketAddr>,
    /// Protocol of the publisher: `rtmp`, `srt`, `whip`.
    pub protocol: String,
    /// Unix time of the first byte, in milliseconds, by the owner's clock. For display only.
    pub started_at_ms: u64,
}

/// The right to be the only owner of a stream, until it is released, taken over, or its lease
/// expires.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The stream.
    pub name: StreamName,
    /// The incarnation that owns it.
    pub owner: NodeIncarnation,
    /// Fencing token: each new owner of the name gets a greater one. A reader that has seen a
    /// greater epoch rejects this claim.
    pub epoch: u64,
}

/// A live stream as the registry returns it: its owner's lease has not expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Owner and epoch.
    #[serde(flatten)]
    pub claim: Claim,
    /// What the owner declared.
    #[serde(flatten)]
    pub offer: StreamOffer,
    /// Milliseconds since the claim, by the registry's clock.
    pub age_ms: u64,
    /// Milliseconds until the owner's lease expires, unless it is renewed.
    pub lease_left_ms: u64,
}
