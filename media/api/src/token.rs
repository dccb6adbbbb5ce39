//! The document that describes a one-time token.

use serde::{Deserialize, Serialize};

use crate::StreamName;

/// One token, good for one publisher or viewer of one stream, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDocument {
    /// SHA-256 of the token in lower-case hexadecimal: whoever reads the registry cannot use it.
    pub digest: String,
    /// The stream it opens.
    pub stream: StreamName,
    /// What for.
    pub grants: Grant,
    /// Unix time, in milliseconds, from which it is no longer good, by the registry's clock.
    pub expires_at_ms: u64,
}

/// What a token lets its bearer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// Publish.
    Publish,
    /// Watch.
    Play,
}
