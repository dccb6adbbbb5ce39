//! Errors of the registry, in sentences that an operator can act on.
//!
//! Must not contain a type of a database: callers decide by variant, and display the chain.

use std::path::PathBuf;

use headwater_api::StreamName;
use headwater_api::documents::{AppDocument, BootEpoch};

/// The cause of an error, as the database reports it.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the registry could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The folder or the file is unusable: missing rights, a full disk, a missing folder.
    #[error("could not open the registry {}", path.display())]
    Open {
        /// Path of the file.
        path: PathBuf,
        /// The database's own error.
        source: Cause,
    },
    /// Another process has the file open.
    #[error("the registry {} is in use by another process: is a node already running with this data folder?", path.display())]
    Locked {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file is not a registry, or it is damaged.
    #[error("the registry {} is damaged or not a registry: restore it, or move it away to start with an empty one", path.display())]
    Corrupt {
        /// Path of the file.
        path: PathBuf,
        /// The database's own error.
        source: Cause,
    },
    /// The file was written by a version with another storage format.
    #[error("the registry {} has the format of another version of Headwater", path.display())]
    Version {
        /// Path of the file.
        path: PathBuf,
    },
    /// A document could not be read from the file.
    #[error("could not read {what} from the registry {}", path.display())]
    Read {
        /// `apps`, `nodes`.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The database's own error.
        source: Cause,
    },
    /// A document could not be written to the file.
    #[error("could not write {what} to the registry {}", path.display())]
    Write {
        /// `apps`, `nodes`.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The database's own error.
        source: Cause,
    },
    /// The connection string is invalid, or its file is unreadable.
    #[error("{reason}")]
    Setting {
        /// The setting and what is wrong with it; contains no part of a secret.
        reason: String,
        /// The cause, if another library reported it.
        source: Option<Cause>,
    },
    /// The database did not answer in time, closed the connection, or has no primary at the moment.
    #[error("could not {attempted}: the database {servers} is unreachable")]
    Unreachable {
        /// `register node a`.
        attempted: String,
        /// Host and port, as configured.
        servers: String,
        /// The database's own error.
        source: Cause,
    },
    /// The database refused the call: wrong password, untrusted certificate, missing rights, an
    /// unknown command.
    #[error("could not {attempted}: the database {servers} refused")]
    Refused {
        /// `register node a`.
        attempted: String,
        /// Host and port, as configured.
        servers: String,
        /// True if the same call may succeed later, once the database's operator has acted: a full
        /// disk, too few members.
        retryable: bool,
        /// The database's own error.
        source: Cause,
    },
    /// A later incarnation of the node has registered.
    #[error(
        "node {id} has registered again with epoch {registered}, after this incarnation with epoch {this}: is the same \
         id used twice?"
    )]
    Superseded {
        /// Id of the node.
        id: String,
        /// Epoch of the caller.
        this: BootEpoch,
        /// Epoch of the registered incarnation.
        registered: BootEpoch,
    },
    /// The node's document does not exist: its lease expired long ago, or an operator removed it.
    #[error("node {id} is not registered")]
    NotRegistered {
        /// Id of the node.
        id: String,
    },
    /// Another node owns the stream, and its lease lasts.
    #[error("stream {name} is published on node {owner}")]
    Taken {
        /// Name of the stream.
        name: StreamName,
        /// The node that owns it.
        owner: String,
    },
    /// An app has been changed, or removed, since the caller read it.
    #[error("app {name} has been changed by someone else")]
    Changed {
        /// Name of the app.
        name: String,
        /// The current document; `None` if the app does not exist.
        current: Option<Box<AppDocument>>,
    },
    /// A document that must be new exists already.
    #[error("{what} {id} already exists")]
    Exists {
        /// `user`, `token`.
        what: &'static str,
        /// Its name; for a token its digest.
        id: String,
    },
}

impl RegistryError {
    /// True if the same call may succeed later: the caller retries. False if the error is
    /// permanent: an operator must change something, or the error is the answer.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Read { .. } | Self::Write { .. } | Self::Locked { .. } => true,
            Self::Refused { retryable, .. } => *retryable,
            _ => false,
        }
    }
}
