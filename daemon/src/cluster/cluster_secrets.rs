//! Fetches what a node of a cluster needs before it can register: the connection string of the
//! registry and the relay secret.
//!
//! Both come from Secrets Manager with the instance's role, and are written to files that the
//! engine reads, because a configuration may be shown to people. Retries without limit, since a
//! registry node or a permission may appear later than this node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_api::Config;
use headwater_api::config::RegistryKind;
use headwater_api::control::{LEASE, NodeHealth};
use headwater_api::error::Chain;
use headwater_api::secret::Secret;
use headwater_program::private_file::write_private;
use headwater_registry::{RegistryError, jitter};
use tokio::sync::watch;

use crate::aws::client::{Aws, AwsError};
use crate::boot::plan::{Cluster, Plan};
use crate::cluster::shared_registry;
use crate::cluster::shared_registry::SharedRegistryError;
use crate::process::service_manager::ServiceManager;

/// Why the cluster's secrets are not available yet.
#[derive(Debug, thiserror::Error)]
enum ClusterSecretsError {
    /// The registry was not found.
    #[error(transparent)]
    Registry(#[from] SharedRegistryError),
    /// The relay secret could not be fetched.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// A secret could not be written for the engine.
    #[error("could not write {}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// The cause of the failure.
        source: std::io::Error,
    },
}

/// Completes `config` with the registry and the relay secret of the cluster; waits until both are
/// available. The node is out of service until then.
pub(crate) async fn wait_for_cluster_secrets(cluster: &Cluster, config: &mut Config, manager: &ServiceManager) {
    let aws = Aws::in_region(&cluster.region).await;
    retry_until_ok(manager, async || fetch_cluster_secrets(&aws, cluster, config).await).await;
}

/// Retries until the attempt succeeds. Logs each new reason once.
pub(crate) async fn retry_until_ok<T, E: std::error::Error + 'static>(
    manager: &ServiceManager,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let mut last_reason = String::new();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(e) => report_out_of_service(&e, manager, &mut last_reason),
        }
        tokio::time::sleep(jitter(RETRY_INTERVAL, rand::random_range(0.0..1.0))).await;
    }
}

/// Logs why the node is out of service, unless the reason equals `last_reason`.
pub(crate) fn report_out_of_service(
    reason: &(dyn std::error::Error + 'static),
    manager: &ServiceManager,
    last_reason: &mut String,
) {
    let reason = Chain(reason).to_string();
    if reason != *last_reason {
        log::warn!(err = reason.as_str(); "out of service");
        manager.status(&format!("out of service: {reason}"));
        *last_reason = reason;
    }
}

/// Reports that the registry rejected this node, and waits before the next attempt.
pub(crate) async fn wait_after_rejection(refusal: &RegistryError, manager: &ServiceManager, last_reason: &mut String) {
    report_out_of_service(refusal, manager, last_reason);
    tokio::time::sleep(jitter(REJECTED_RETRY_INTERVAL, rand::random_range(0.0..1.0))).await;
}

/// Random time to retry one registry address before AWS is asked for the address again.
pub(crate) fn random_address_timeout() -> Duration {
    OUTAGE_REFRESH_INTERVAL.mul_f64(rand::random_range(0.5..1.0))
}

async fn fetch_cluster_secrets(aws: &Aws, cluster: &Cluster, config: &mut Config) -> Result<(), ClusterSecretsError> {
    // The configuration file takes precedence.
    if config.registry.uri_file.is_none() {
        let found = shared_registry::find(aws, cluster).await?;
        config.registry.uri_file = Some(write_secret(&config.node.data_dir, REGISTRY_URI_FILE, &found.uri)?);
    }
    config.registry.kind = RegistryKind::MongoDb;
    if config.relay.secret_file.is_none() {
        let secret = aws.fetch_secret(&relay_secret_name(cluster)).await?;
        config.relay.secret_file = Some(write_secret(&config.node.data_dir, "relay-secret", &secret)?);
    }
    Ok(())
}

/// Keeps the connection string file equal to what AWS provides: the password may change, and
/// registry nodes may be replaced, while this node serves. Checks at a fixed interval, and soon
/// after the heartbeat fails. Never returns.
///
/// Every process that has the registry open, including the engine, reads the file again when calls
/// fail.
pub(crate) async fn follow_registry_uri(plan: &Plan, config: &Config, mut health_rx: watch::Receiver<NodeHealth>) {
    let (Some(cluster), None, Some(file)) = (&plan.cluster, &plan.engine.registry.uri_file, &config.registry.uri_file)
    else {
        return std::future::pending().await;
    };
    let aws = Aws::in_region(&cluster.region).await;
    let mut last_reason = String::new();
    loop {
        let is_unreachable = |health: &NodeHealth| health.checks.get(LEASE).is_some_and(Option::is_some);
        if is_unreachable(&health_rx.borrow_and_update()) {
            // All nodes notice an outage at once, and AWS limits the request rate.
            tokio::time::sleep(random_address_timeout()).await;
        } else {
            // Without a sender only the interval counts.
            let _ = tokio::time::timeout(REFRESH_INTERVAL, health_rx.wait_for(is_unreachable)).await;
        }
        let check = async {
            let found = shared_registry::find(&aws, cluster).await?;
            let current = std::fs::read_to_string(file).unwrap_or_default();
            if current.trim() == found.uri.reveal().trim() {
                return Ok(false);
            }
            write_secret(&config.node.data_dir, REGISTRY_URI_FILE, &found.uri)?;
            Ok::<_, ClusterSecretsError>(true)
        };
        match check.await {
            Ok(changed) => {
                last_reason.clear();
                if changed {
                    log::info!("the registry's nodes or its password have changed");
                }
            }
            Err(e) => {
                let reason = Chain(&e).to_string();
                if reason != last_reason {
                    log::warn!(err = reason.as_str(); "could not look up the registry in AWS");
                    last_reason = reason;
                }
            }
        }
    }
}

/// Name of the secret that authenticates relays, by convention.
pub(crate) fn relay_secret_name(cluster: &Cluster) -> String {
    format!("headwater/{}/relay", cluster.name)
}

fn write_secret(folder: &Path, name: &str, secret: &Secret) -> Result<PathBuf, ClusterSecretsError> {
    write_private(folder, name, secret.reveal().trim())
        .map_err(|source| ClusterSecretsError::Write { path: folder.join(name), source })
}

/// Name of the file in the data folder that holds the connection string, including the password.
pub(crate) const REGISTRY_URI_FILE: &str = "registry-uri";
/// Interval between two checks of AWS while all is well, and while the registry is unreachable.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
const OUTAGE_REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// After a rejection, which only an operator can resolve.
const REJECTED_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Mean interval between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_a_secret_is_not_written() {
        let folder = std::env::temp_dir().join(format!("headwaterd-secret-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = write_secret(&folder, "s", &Secret::new(" hunter2\n".to_owned())).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hunter2\n");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
