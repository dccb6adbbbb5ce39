//! Why the engine did not start.

use std::path::PathBuf;

use headwater_registry::RegistryError;

use crate::gateway::relay::SecretFileError;
use crate::runtime::descriptors::TooFewDescriptors;
use crate::runtime::listener::ListenError;
use crate::runtime::node_secret::NodeSecretError;

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error("data folder {} cannot be written", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Too few files may be open.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The certificate or its key cannot be used.
    #[error("[tls] cannot be used")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A listener could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The WebRTC gateway could not be prepared.
    #[error("could not prepare WebRTC")]
    Webrtc(#[source] std::io::Error),
    /// The cluster secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The secret from which the keys of sessions are derived cannot be used.
    #[error(transparent)]
    NodeSecret(#[from] NodeSecretError),
}
