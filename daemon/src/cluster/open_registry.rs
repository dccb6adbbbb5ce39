//! Opens the registry for a command that may run while a node runs.
//!
//! A shared registry is reached with the connection string that the running node has stored, or
//! with what AWS provides. An embedded registry can be opened only while the node does not run,
//! because its engine locks it.

use headwater_api::config::RegistryKind;
use headwater_registry::{MongoDb, RegistryError, Store, Timing};

use crate::aws::client::Aws;
use crate::boot::plan::Plan;
use crate::boot::registration;
use crate::cluster::cluster_secrets::REGISTRY_URI_FILE;
use crate::cluster::shared_registry;
use crate::cluster::shared_registry::SharedRegistryError;

/// Why the registry could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenRegistryError {
    /// Opening it failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It could not be found.
    #[error(transparent)]
    Shared(#[from] SharedRegistryError),
}

impl OpenRegistryError {
    /// True if the running node holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self, Self::Registry(RegistryError::Locked { .. }))
    }
}

/// Opens the registry that the plan names. An unreachable database is no error here: the calls fail
/// instead.
pub(crate) async fn open(plan: &Plan) -> Result<Store, OpenRegistryError> {
    let (Some(cluster), None) = (&plan.cluster, &plan.engine.registry.uri_file) else {
        return Ok(registration::open(&plan.engine).await?);
    };
    let uri_file = plan.engine.node.data_dir.join(REGISTRY_URI_FILE);
    if uri_file.exists() {
        let config = headwater_api::config::Registry { kind: RegistryKind::MongoDb, uri_file: Some(uri_file) };
        return Ok(Store::open(&config, &plan.engine.node.data_dir).await?);
    }
    let aws = Aws::in_region(&cluster.region).await;
    let found = shared_registry::find(&aws, cluster).await?;
    Ok(Store::from(MongoDb::open(&found.uri, Timing::default()).await?))
}
