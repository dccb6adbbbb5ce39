//! The document that describes an app: a namespace of streams with its own rules.

use serde::{Deserialize, Serialize};

use crate::secret::{self, Secret};

/// One app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppDocument {
    /// First part of a stream's name.
    pub name: String,
    /// Who may publish into it.
    #[serde(default)]
    pub publish: Policy,
    /// Who may watch its streams.
    #[serde(default)]
    pub play: Policy,
    /// What [`Policy::StreamKey`] asks for.
    #[serde(default, serialize_with = "secret::store_option")]
    pub stream_key: Option<Secret>,
    /// The HS256 key that [`Policy::Jwt`] checks signatures with.
    #[serde(default, serialize_with = "secret::store_option")]
    pub jwt_key: Option<Secret>,
}

impl AppDocument {
    /// An app that is open to everybody.
    pub fn open(name: impl Into<String>) -> Self {
        Self { name: name.into(), publish: Policy::Open, play: Policy::Open, stream_key: None, jwt_key: None }
    }
}

/// What a publisher or a viewer must show. The same on every protocol and every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Nothing.
    #[default]
    Open,
    /// The app's stream key.
    StreamKey,
    /// A JSON web token signed with the app's key (HS256).
    Jwt,
    /// A one-time token from the registry.
    OneTimeToken,
}

/// The apps that exist from the start.
pub const DEFAULT_APPS: [&str; 2] = ["live", "LiveApp"];
