//! The document that describes who may administer.

use serde::{Deserialize, Serialize};

use crate::secret::{self, Secret};

/// One user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDocument {
    /// Unique, as typed at the login.
    pub name: String,
    /// argon2id in PHC form (`$argon2id$…`). The registry does not look inside.
    #[serde(serialize_with = "secret::store")]
    pub password_hash: Secret,
    /// What the user may do.
    pub rights: Rights,
    /// Unix time, in milliseconds.
    pub created_at_ms: u64,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rights {
    /// Look.
    Read,
    /// Look, and manage streams and recordings.
    Operate,
    /// Everything.
    Administer,
}

/// The user that every registry has who is made without being asked for: may do everything.
pub const ADMINISTRATOR: &str = "admin";

/// File inside `data_dir` in which a new administrator (a [`UserDocument`] as JSON) waits for the engine, which takes it into
/// the registry that only the engine may open, and removes it.
pub const HANDOVER_FILE: &str = "administrator.new";
