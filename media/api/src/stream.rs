//! The documents that say which node holds a live stream.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::StreamName;
use crate::node::Life;

/// What an owner says about its stream when it claims it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOffer {
    /// Where edges fetch it, best first: the owner's relay.
    pub relay: Vec<SocketAddr>,
    /// How it is published: `rtmp`, `srt`, `whip`.
    pub protocol: String,
    /// Unix time of the first byte, in milliseconds, by the owner's clock: to show, not to decide.
    pub started_at_ms: u64,
}

/// The right to be the one owner of a stream, until it is released, lost or its lease ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The stream.
    pub name: StreamName,
    /// Who holds it.
    pub owner: Life,
    /// Fencing token: each new owner of the name has a greater one. A reader who has seen a greater one refuses this.
    pub epoch: u64,
}

/// A live stream as the registry knows it: its owner's lease lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Who holds it, and with which epoch.
    #[serde(flatten)]
    pub claim: Claim,
    /// What the owner said.
    #[serde(flatten)]
    pub offer: StreamOffer,
    /// Milliseconds since it was claimed, by the registry's clock.
    pub age_ms: u64,
    /// Milliseconds until the owner's lease ends, if it is not renewed.
    pub lease_left_ms: u64,
}
