//! What a client must present to publish or to play.
//!
//! Must not know protocols: the same policies hold for all of them.

use serde::{Deserialize, Serialize};

/// The credentials that a publisher or viewer must present, on every protocol and every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// No credentials.
    #[default]
    Open,
    /// The app's publish key.
    #[serde(alias = "publish_key")]
    Key,
    /// A token from the registry that admits one client.
    OneTimeToken,
    /// A JSON web token (RFC 7519): HS256 with the app's key, or RS256 and ES256 with a key of the
    /// app's JWKS URL.
    Jwt,
    /// The SHA-256 of stream id, action and the app's secret, in hexadecimal, as Ant Media's.
    Hash,
    /// Nothing admits anyone.
    Closed,
}

/// The policies of one stream where they differ from those of its app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamPolicy {
    /// What a publisher must present; `None`: what the app requires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Policy>,
    /// What a viewer must present; `None`: what the app requires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub play: Option<Policy>,
}
