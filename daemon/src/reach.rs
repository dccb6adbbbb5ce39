//! The registry as a command reaches it, beside a node that may be running.
//!
//! A shared registry is reached with what the running node was told, or with what AWS says. The registry of a node on its own
//! can be opened only while the node does not run: its engine has it.

use headwater_api::config::RegistryKind;
use headwater_api::secret::Secret;
use headwater_registry::{MongoDb, RegistryError, Store, Timing};

use crate::aws::Aws;
use crate::join::REGISTRY_FILE;
use crate::plan::Plan;
use crate::register;
use crate::shared_registry::{self, SharedRegistryError};

/// Why there is no registry to ask.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    /// It cannot be opened.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It cannot be found.
    #[error(transparent)]
    Shared(#[from] SharedRegistryError),
}

impl ReachError {
    /// True if the running node has it.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self, Self::Registry(RegistryError::Locked { .. }))
    }
}

/// Opens the registry that the plan names. A database that is away is no error here: calls say so.
pub(crate) async fn open(plan: &Plan) -> Result<Store, ReachError> {
    let (Some(cluster), None) = (&plan.cluster, &plan.engine.registry.uri_file) else {
        return Ok(register::open(&plan.engine).await?);
    };
    let told = plan.engine.node.data_dir.join(REGISTRY_FILE);
    if told.exists() {
        let config = headwater_api::config::Registry { kind: RegistryKind::MongoDb, uri_file: Some(told) };
        return Ok(Store::open(&config, &plan.engine.node.data_dir).await?);
    }
    let aws = Aws::in_region(&cluster.region).await;
    let found = shared_registry::find(&aws, cluster).await?;
    let uri = Secret::new(found.uri.expose());
    Ok(Store::from(MongoDb::open(&uri, Timing::default()).await?))
}
