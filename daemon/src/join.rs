//! What a node of a cluster must be told before it can register: where the registry is, and the secret of the relay.
//!
//! Both come from Secrets Manager with the instance's role, and go into files that the engine reads: a configuration may
//! be shown to people. Asks again and again, since a registry node or a permission may come later than this node.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_api::Config;
use headwater_api::config::RegistryKind;
use headwater_api::error::Chain;
use headwater_api::standing::{LEASE, Standing};
use headwater_registry::{RegistryError, spread};
use tokio::sync::watch;

use crate::aws::{Aws, AwsError, Secret};
use crate::lifecycle::ServiceManager;
use crate::plan::{Cluster, Plan};
use crate::shared_registry::{self, SharedRegistryError};

/// Why the node cannot join yet.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    /// The registry cannot be found.
    #[error(transparent)]
    Registry(#[from] SharedRegistryError),
    /// The relay's secret cannot be had.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// A secret cannot be handed to the engine.
    #[error("could not write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Completes `config` with what the cluster's nodes share; waits until it can be had. Out of service until then.
pub(crate) async fn until_joined(cluster: &Cluster, config: &mut Config, manager: &ServiceManager) {
    let aws = Aws::in_region(&cluster.region).await;
    until(manager, async || join(&aws, cluster, config).await).await;
}

/// Tries until it works, and says why it does not; each reason once.
pub(crate) async fn until<T, E: std::error::Error + 'static>(
    manager: &ServiceManager,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let mut said = String::new();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(e) => out_of_service(&e, manager, &mut said),
        }
        tokio::time::sleep(spread(PAUSE, rand::random_range(0.0..1.0))).await;
    }
}

/// Says why the node is not up, unless that was what it `said` last.
pub(crate) fn out_of_service(why: &(dyn std::error::Error + 'static), manager: &ServiceManager, said: &mut String) {
    let why = Chain(why).to_string();
    if why != *said {
        log::warn!(err = why.as_str(); "out of service");
        manager.status(&format!("out of service: {why}"));
        *said = why;
    }
}

/// Says that the registry does not take this node, and waits a moment.
pub(crate) async fn wait_refused(refusal: &RegistryError, manager: &ServiceManager, said: &mut String) {
    out_of_service(refusal, manager, said);
    tokio::time::sleep(spread(REFUSED_PAUSE, rand::random_range(0.0..1.0))).await;
}

/// For how long a registry that is away is looked for at one place, before AWS is asked anew where it is.
pub(crate) fn patience_at_one_place() -> Duration {
    LOOK_SOON.mul_f64(rand::random_range(0.5..1.0))
}

async fn join(aws: &Aws, cluster: &Cluster, config: &mut Config) -> Result<(), JoinError> {
    // What the operator wrote into the file wins.
    if config.registry.uri_file.is_none() {
        let found = shared_registry::find(aws, cluster).await?;
        config.registry.uri_file = Some(write(&config.node.data_dir, REGISTRY_FILE, &found.uri)?);
    }
    config.registry.kind = RegistryKind::MongoDb;
    if config.relay.secret_file.is_none() {
        let secret = aws.fetch_secret(&relay_secret_name(cluster)).await?;
        config.relay.secret_file = Some(write(&config.node.data_dir, "relay-secret", &secret)?);
    }
    Ok(())
}

/// Keeps the file that says how the registry is reached as AWS has it: its password may be changed and its nodes may be replaced while
/// this node serves. Looks now and then, and soon when the registry does not hear from this node. Never ends.
///
/// Whoever has the registry open, the engine too, reads the file again when calls fail.
pub(crate) async fn follow_registry(plan: &Plan, config: &Config, mut stands: watch::Receiver<Standing>) {
    let (Some(cluster), None, Some(file)) = (&plan.cluster, &plan.engine.registry.uri_file, &config.registry.uri_file)
    else {
        return std::future::pending().await;
    };
    let aws = Aws::in_region(&cluster.region).await;
    let mut said = String::new();
    loop {
        let away = |standing: &Standing| standing.checks.get(LEASE).is_some_and(Option::is_some);
        if away(&stands.borrow_and_update()) {
            // All nodes hear of an outage at once, and AWS counts their questions.
            tokio::time::sleep(patience_at_one_place()).await;
        } else {
            // Nobody to tell how it stands: then it is time that counts.
            let _ = tokio::time::timeout(LOOK, stands.wait_for(away)).await;
        }
        let looked = async {
            let found = shared_registry::find(&aws, cluster).await?;
            let known = std::fs::read_to_string(file).unwrap_or_default();
            if known.trim() == found.uri.expose().trim() {
                return Ok(false);
            }
            write(&config.node.data_dir, REGISTRY_FILE, &found.uri)?;
            Ok::<_, JoinError>(true)
        };
        match looked.await {
            Ok(changed) => {
                said.clear();
                if changed {
                    log::info!("the registry's nodes or its password have changed");
                }
            }
            Err(e) => {
                let why = Chain(&e).to_string();
                if why != said {
                    log::warn!(err = why.as_str(); "AWS does not say how the registry is reached");
                    said = why;
                }
            }
        }
    }
}

/// By convention.
pub(crate) fn relay_secret_name(cluster: &Cluster) -> String {
    format!("headwater/{}/relay", cluster.name)
}

fn write(folder: &Path, name: &str, secret: &Secret) -> Result<PathBuf, JoinError> {
    write_private(folder, name, secret.expose().trim())
        .map_err(|source| JoinError::Write { path: folder.join(name), source })
}

/// A file that only this user may read, from its first byte on. One that is there is replaced in one step, rights included.
pub(crate) fn write_private(folder: &Path, name: &str, text: &str) -> std::io::Result<PathBuf> {
    let (path, draft) = (folder.join(name), folder.join(format!("{name}.draft")));
    match std::fs::remove_file(&draft) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{text}")?;
    std::fs::rename(draft, &path)?;
    Ok(path)
}

/// In the data folder: how to reach the registry, password included.
pub(crate) const REGISTRY_FILE: &str = "registry-uri";
/// Between two looks at what AWS says while all is well, and while the registry is away.
const LOOK: Duration = Duration::from_secs(5 * 60);
const LOOK_SOON: Duration = Duration::from_secs(30);
/// After a refusal, which only a person ends.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Between two attempts, about.
const PAUSE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_its_owners_alone_also_where_a_file_lay_open_before() {
        let folder = std::env::temp_dir().join(format!("headwaterd-join-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("s"), "an earlier one").unwrap();
        let path = write(&folder, "s", &Secret::new(" hunter2\n".to_owned())).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hunter2\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
