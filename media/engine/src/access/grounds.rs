//! Why a client was admitted: what must remain true while its session lasts.

use std::net::IpAddr;

use headwater_api::StreamName;
use headwater_api::documents::Grant;

use super::signing_keys::{FINGERPRINT_BYTES, Fingerprint};
use super::token_digest::TokenId;

/// What admitted a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grounds {
    pub(super) action: Grant,
    pub(super) stream: StreamName,
    pub(super) client: IpAddr,
    pub(super) evidence: Evidence,
    /// Unix time of the end of the play session that the client presented, in milliseconds; `None`
    /// if it presented what admits a client first.
    pub(super) session_ends_at_ms: Option<u64>,
    /// Digest of the one-time token that still has to be consumed.
    pub(super) unredeemed: Option<String>,
}

/// What a client presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Identifies the policy and its key; [`OPEN`] if nothing had to be presented.
    pub(super) policy: Fingerprint,
    /// The token; [`TokenId::NONE`] if it was none.
    pub(super) token: TokenId,
    /// Unix time at which the token expires, in milliseconds; `u64::MAX`: never.
    pub(super) expires_at_ms: u64,
}

impl Evidence {
    /// Something that is no token.
    pub(super) fn without_token(policy: Fingerprint) -> Self {
        Self { policy, token: TokenId::NONE, expires_at_ms: u64::MAX }
    }
}

impl Grounds {
    /// True if the stream may be played without credentials.
    pub fn is_open(&self) -> bool {
        self.evidence.policy == OPEN
    }

    /// The stream.
    pub fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// Address of the client.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// True if the client presented a one-time token that has not been consumed yet.
    pub fn needs_redemption(&self) -> bool {
        self.unredeemed.is_some()
    }

    /// True if the client presented a play session.
    pub fn is_session(&self) -> bool {
        self.session_ends_at_ms.is_some()
    }
}

/// Stands for the policy `open`, which has no key.
pub(super) const OPEN: Fingerprint = [0; FINGERPRINT_BYTES];
