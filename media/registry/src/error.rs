//! What can go wrong with the registry, in sentences an operator can act on.
//!
//! Must not carry a type of the database: callers decide by variant and show the chain.

use std::path::PathBuf;

use headwater_api::StreamName;
use headwater_api::node::BootEpoch;

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
    /// The connection string, or the file it comes from, is no good.
    #[error("{reason}")]
    Setting {
        /// What is wrong with which setting; no part of a secret.
        reason: String,
        /// The cause, if it is not ours.
        source: Option<Cause>,
    },
    /// The database did not answer in time, went away, or has no primary at the moment.
    #[error("could not {attempted}: the database {servers} is not to be reached")]
    Unreachable {
        /// `register node a`.
        attempted: String,
        /// Host and port, as configured.
        servers: String,
        /// The cause.
        source: Cause,
    },
    /// The database answered with a refusal: wrong password, a certificate that is not trusted, missing rights, something it does not understand.
    #[error("could not {attempted}: the database {servers} refuses")]
    Refused {
        /// `register node a`.
        attempted: String,
        /// Host and port, as configured.
        servers: String,
        /// True if it may accept the same call later, once somebody has seen to it: a full disk, too few members.
        retryable: bool,
        /// The cause.
        source: Cause,
    },
    /// The node has a later life than the one that speaks.
    #[error(
        "node {id} has registered again with epoch {registered}, after this life with epoch {this}: is the same id used twice?"
    )]
    Superseded {
        /// The node.
        id: String,
        /// Epoch of the life that speaks.
        this: BootEpoch,
        /// Epoch of the life that is registered.
        registered: BootEpoch,
    },
    /// The node's document is not there any more: its lease ended long ago, or somebody removed it.
    #[error("node {id} is not registered")]
    NotRegistered {
        /// The node.
        id: String,
    },
    /// Another node holds the stream, and its lease lives.
    #[error("stream {name} is published on node {owner}")]
    Taken {
        /// The stream.
        name: StreamName,
        /// The node that holds it.
        owner: String,
    },
    /// A document that must be new is there already.
    #[error("there is a {what} {id} already")]
    Exists {
        /// `user`, `token`.
        what: &'static str,
        /// Its name; for a token its digest.
        id: String,
    },
}

impl RegistryError {
    /// True if the same call may succeed later by itself: the caller keeps trying. False if it is settled: somebody must
    /// change something, or the answer is the answer.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Read { .. } | Self::Write { .. } | Self::Locked { .. } => true,
            Self::Refused { retryable, .. } => *retryable,
            _ => false,
        }
    }
}
