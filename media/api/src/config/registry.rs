//! Where documents are stored, and the database that a registry node runs.

use std::num::NonZeroU16;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where documents are stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Embedded or MongoDB.
    pub kind: RegistryKind,
    /// File whose first line is the MongoDB connection string, password included. Read at startup,
    /// and again when calls to the database fail.
    pub uri_file: Option<PathBuf>,
}

/// The backend of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryKind {
    /// A file in `data_dir`, for one standalone node.
    #[default]
    Embedded,
    /// MongoDB, shared by all nodes of a cluster; requires `uri_file`.
    MongoDb,
}

/// The database that a registry node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mongod {
    /// MongoDB's server: a path, or a name that is looked up on PATH.
    pub program: PathBuf,
    /// TCP port; must be the same on all registry nodes of a cluster, because the other nodes
    /// connect to it.
    pub port: NonZeroU16,
}

impl Default for Mongod {
    fn default() -> Self {
        Self {
            program: PathBuf::from("mongod"),
            port: const { NonZeroU16::new(27_017).expect("a literal above zero") },
        }
    }
}
