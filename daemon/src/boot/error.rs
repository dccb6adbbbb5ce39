//! Why a node could not start or keep running, and how an incarnation of it ends.

use headwater_api::error::exit;
use headwater_registry::RegistryError;

use crate::aws::imds::ImdsError;
use crate::boot::data_dir::DataDirError;
use crate::boot::plan::PlanError;
use crate::boot::settings::SettingsError;
use crate::cluster::administrator::AdministratorError;
use crate::process::engine::EngineError;
use crate::registry_node::health::ListenError;
use crate::registry_node::mongod::PrepareError;

/// Why the node could not start or keep running.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// Signal handlers could not be installed.
    #[error("could not watch signals")]
    Signals(#[source] std::io::Error),
    /// The configuration file is unusable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Instance metadata is required but unavailable.
    #[error(transparent)]
    Metadata(#[from] ImdsError),
    /// Facts and settings do not make a valid plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The data folder is not writable, or in use.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The registry is unusable.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The administrator account could not be created.
    #[error(transparent)]
    Administrator(#[from] AdministratorError),
    /// The files of a registry node's database could not be written.
    #[error(transparent)]
    Mongod(#[from] PrepareError),
    /// The health listener of a registry node could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The engine could not be started, or keeps exiting.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl BootError {
    /// Exit code of the daemon for this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Signals(_) | Self::Metadata(_) | Self::Registry(RegistryError::Locked { .. }) => exit::UNAVAILABLE,
            Self::Listen(_) | Self::Administrator(_) | Self::DataDir(DataDirError::InUse { .. }) => exit::UNAVAILABLE,
            Self::Settings(_) | Self::Plan(_) | Self::DataDir(_) | Self::Mongod(_) | Self::Registry(_) => exit::CONFIG,
            Self::Engine(e) => e.exit_code(),
        }
    }
}

/// Why an incarnation of the node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeExit {
    /// The node was stopped: the daemon exits too.
    Stopped,
    /// The instance is back in the warm pool and may be started again.
    WarmPool,
}
