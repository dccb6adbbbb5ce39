//! Apps: namespaces of streams with their own rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Policy, StreamPolicy, stream_policies};
use crate::IpNetwork;
use crate::secret::{self, Secret};

/// An app: who may publish, play and embed its streams.
///
/// Every field but the name has a default, so that documents of earlier versions can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppDocument {
    /// First part of the name of each of its streams.
    pub name: String,
    /// Number of changes since the app was created. A writer sends the revision that it has read;
    /// the registry refuses to write if another writer came first.
    #[serde(default)]
    pub revision: u64,
    /// What a publisher must present.
    #[serde(default)]
    pub publish: Policy,
    /// What a viewer must present.
    #[serde(default)]
    pub play: Policy,
    /// Stream ids whose policies differ; at most [`MAX_STREAM_POLICIES`](super::MAX_STREAM_POLICIES).
    #[serde(default, with = "stream_policies", skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, StreamPolicy>,
    /// The secret that [`Policy::Key`] compares with.
    #[serde(default, serialize_with = "secret::store_option")]
    pub publish_key: Option<Secret>,
    /// The secret of [`Policy::Hash`].
    #[serde(default, serialize_with = "secret::store_option")]
    pub hash_secret: Option<Secret>,
    /// The HS256 key of [`Policy::Jwt`], at least 32 bytes (RFC 7518 §3.2).
    #[serde(default, serialize_with = "secret::store_option")]
    pub jwt_key: Option<Secret>,
    /// URL of the JWK set (RFC 7517 §5) with the RS256 and ES256 keys of [`Policy::Jwt`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// True if the host of `jwks_url` may have a private address, and the URL may be `http`.
    #[serde(default)]
    pub jwks_private: bool,
    /// Networks that may publish; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish_networks: Vec<IpNetwork>,
    /// Origins (RFC 6454 §6.2) whose pages may embed the player and fetch media with credentials;
    /// empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// True if a session ends when the token that admitted it expires.
    #[serde(default)]
    pub end_at_expiry: bool,
}

impl AppDocument {
    /// An app that requires no credentials.
    pub fn open(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            revision: 0,
            publish: Policy::Open,
            play: Policy::Open,
            streams: BTreeMap::new(),
            publish_key: None,
            hash_secret: None,
            jwt_key: None,
            jwks_url: None,
            jwks_private: false,
            publish_networks: Vec::new(),
            allowed_origins: Vec::new(),
            end_at_expiry: false,
        }
    }

    /// What a publisher of this stream must present.
    pub fn publish_policy(&self, stream_id: &str) -> Policy {
        self.streams.get(stream_id).and_then(|stream| stream.publish).unwrap_or(self.publish)
    }

    /// What a viewer of this stream must present.
    pub fn play_policy(&self, stream_id: &str) -> Policy {
        self.streams.get(stream_id).and_then(|stream| stream.play).unwrap_or(self.play)
    }
}

/// The apps that a new registry contains.
pub const DEFAULT_APPS: [&str; 2] = ["live", "LiveApp"];
