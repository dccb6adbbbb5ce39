//! What can go wrong with the registry, in sentences an operator can act on.
//!
//! Must not carry a type of the database: callers decide by variant and show the chain.

use std::path::PathBuf;

/// Cause as the database gives it.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the registry could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The folder or the file cannot be used: missing rights, a full disk, a folder that is not there.
    #[error("could not open the registry {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Cause,
    },
    /// Another process has the file open.
    #[error("the registry {} is in use by another process: is a node already running with this data folder?", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a registry, or it is damaged.
    #[error("the registry {} is damaged or not a registry: restore it, or move it away to start with an empty one", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Cause,
    },
    /// The file was written by a version that stores documents in another way.
    #[error("the registry {} has the format of another version of Headwater", path.display())]
    Version {
        /// The file.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("could not read {what} from the registry {}", path.display())]
    Read {
        /// `apps`, `nodes`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Cause,
    },
    /// Writing failed.
    #[error("could not write {what} to the registry {}", path.display())]
    Write {
        /// `apps`, `nodes`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Cause,
    },
    /// The document is of an earlier life of this node than the one that is registered.
    #[error("node {id} has registered again at {registered_ms} ms, after this boot at {this_ms} ms")]
    Superseded {
        /// The node.
        id: String,
        /// Unix time of this boot, in milliseconds.
        this_ms: u64,
        /// Unix time of the registered boot, in milliseconds.
        registered_ms: u64,
    },
}
