//! One-time tokens.

use serde::{Deserialize, Serialize};

use crate::StreamName;

/// A token, valid once, for one publisher or viewer of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDocument {
    /// SHA-256 of the token in lower-case hexadecimal. Reading the registry does not reveal the
    /// token.
    pub digest: String,
    /// The stream that the token is for.
    pub stream: StreamName,
    /// The action that the token permits.
    pub grants: Grant,
    /// Unix time of expiry, in milliseconds, by the registry's clock.
    pub expires_at_ms: u64,
}

/// The action that a token permits its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// Publish the stream.
    Publish,
    /// Play the stream.
    Play,
}
