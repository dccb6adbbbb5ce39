//! What a client must present to publish or to play.
//!
//! Must not know protocols: the same policies hold for all of them.

use serde::{Deserialize, Serialize};

/// The credentials that a publisher or viewer must present, on every protocol and every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

impl Policy {
    /// All policies.
    pub const ALL: [Self; 6] = [Self::Open, Self::Key, Self::OneTimeToken, Self::Jwt, Self::Hash, Self::Closed];

    /// The name in documents and settings: `one_time_token`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Key => "key",
            Self::OneTimeToken => "one_time_token",
            Self::Jwt => "jwt",
            Self::Hash => "hash",
            Self::Closed => "closed",
        }
    }
}

/// The policies of one stream where they differ from those of its app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamPolicy {
    /// What a publisher must present; `None`: what the app requires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Policy>,
    /// What a viewer must present; `None`: what the app requires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub play: Option<Policy>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_each_policy_is_its_stored_form() {
        for policy in Policy::ALL {
            assert_eq!(serde_json::to_value(policy).unwrap(), policy.as_str());
        }
    }
}
