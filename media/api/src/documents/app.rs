//! Apps: namespaces of streams with their own rules.

use serde::{Deserialize, Serialize};

use crate::secret::{self, Secret};

/// An app and its access policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppDocument {
    /// First part of the name of each of its streams.
    pub name: String,
    /// What a publisher must present.
    #[serde(default)]
    pub publish: Policy,
    /// What a viewer must present.
    #[serde(default)]
    pub play: Policy,
    /// The secret that [`Policy::PublishKey`] compares with.
    #[serde(default, serialize_with = "secret::store_option")]
    pub publish_key: Option<Secret>,
    /// The HS256 key that [`Policy::Jwt`] verifies signatures with.
    #[serde(default, serialize_with = "secret::store_option")]
    pub jwt_key: Option<Secret>,
}

impl AppDocument {
    /// An app that requires no credentials.
    pub fn open(name: impl Into<String>) -> Self {
        Self { name: name.into(), publish: Policy::Open, play: Policy::Open, publish_key: None, jwt_key: None }
    }
}

/// The credentials that a publisher or viewer must present, on every protocol and every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// No credentials.
    #[default]
    Open,
    /// The app's publish key.
    PublishKey,
    /// A JSON web token (RFC 7519) signed with the app's key (HS256).
    Jwt,
    /// A one-time token from the registry.
    OneTimeToken,
}

/// The apps that a new registry contains.
pub const DEFAULT_APPS: [&str; 2] = ["live", "LiveApp"];
