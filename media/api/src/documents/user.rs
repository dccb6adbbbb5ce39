//! Users, who may administer.

use serde::{Deserialize, Serialize};

use crate::secret::{self, Secret};

/// An account that may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDocument {
    /// Unique, as typed at login.
    pub name: String,
    /// argon2id in PHC form (`$argon2id$…`). The registry does not interpret it.
    #[serde(serialize_with = "secret::store")]
    pub password_hash: Secret,
    /// What the user may do.
    pub rights: Rights,
    /// Unix time, in milliseconds.
    pub created_at_ms: u64,
    /// Ids of sessions that a sign-out has ended, the latest last; at most [`MAX_ENDED_SESSIONS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended_sessions: Vec<String>,
}

/// Maximum number of ended sessions that are kept per user; older ones are forgotten. A session
/// expires by itself after half a day.
pub const MAX_ENDED_SESSIONS: usize = 1_000;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rights {
    /// Read everything that pages and the API show.
    Read,
    /// Read, and manage streams.
    Operate,
    /// Change everything, accounts included.
    Administer,
}

/// Name of the administrator account that is created automatically.
pub const ADMINISTRATOR: &str = "admin";
