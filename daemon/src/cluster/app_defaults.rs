//! The policies of the apps that a new registry contains, chosen at the first boot.
//!
//! | node | publishing | playing |
//! | --- | --- | --- |
//! | in a cluster | with the key in the secret `headwater/CLUSTER/publish`, else with a new one | open |
//! | alone on EC2 | with a new key | open |
//! | alone elsewhere (a laptop) | open to loopback and private networks | open |
//!
//! Only apps that nobody has changed are touched. A shared registry is created closed for
//! publishing, so that no node is open before the key is there.

use std::time::Duration;

use headwater_api::documents::{AppDocument, Policy};
use headwater_api::error::Chain;
use headwater_api::secret::Secret;
use headwater_program::private_file::is_caused_by_full_disk;
use headwater_program::token;
use headwater_registry::{Apps as _, RegistryError, Store};
use serde::Deserialize;

use crate::aws::client::{Aws, AwsError};
use crate::boot::joining::Joined;
use crate::boot::plan::{Cluster, Plan};
use crate::boot::registration;
use crate::operator_command::OperatorCommand;

/// Loopback, private (RFC 1918, RFC 4193), link-local (RFC 3927, RFC 4291 §2.5.6) and shared
/// (RFC 6598) addresses.
const PRIVATE_NETWORKS: [&str; 9] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
    "fe80::/10",
];

/// Why the key of a cluster could not be set.
#[derive(Debug, thiserror::Error)]
enum DefaultsError {
    /// A registry operation failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The secret could not be fetched.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The secret holds no valid key.
    #[error(
        "secret {0} holds no publish key of 8 to 256 letters, digits, '-', '_', '.' or '~', as text or as {{\"key\": …}}"
    )]
    InvalidSecret(String),
}

/// Chooses the policies of the apps that nobody has changed. Call it before the engine starts.
///
/// # Errors
/// If the node's own registry cannot be written. If a shared one cannot, publishing remains closed.
pub(crate) async fn choose(
    plan: &Plan,
    joined: &Joined,
    is_on_ec2: bool,
    command: &OperatorCommand,
) -> Result<(), RegistryError> {
    if let Some(store) = &joined.registered.shared_store {
        let closed = require_key_in_cluster(store, plan.cluster.as_ref(), command);
        let reason = match tokio::time::timeout(SHARED_REGISTRY_TIMEOUT, closed).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(e)) => Chain(&e).to_string(),
            Err(_) => "the registry or AWS does not answer".to_owned(),
        };
        log::error!(
            err = reason.as_str();
            "could not set the publish key: new apps remain closed for publishing until the next start, or until \
             `{}`", command.with("app set APP --publish key")
        );
        return Ok(());
    }
    let store = registration::open(&joined.config).await?;
    if is_on_ec2 {
        return require_key(&store, token::generate, command).await;
    }
    match open_to_private_networks(&store, command).await {
        Err(e) if is_caused_by_full_disk(&e) => {
            log::warn!(err:% = Chain(&e); "disk is full, publishing is open to every network until the next start");
            Ok(())
        }
        result => result,
    }
}

async fn require_key_in_cluster(
    store: &Store,
    cluster: Option<&Cluster>,
    command: &OperatorCommand,
) -> Result<(), DefaultsError> {
    if unchanged_apps(store).await?.is_empty() {
        return Ok(());
    }
    let key = match cluster {
        Some(cluster) => fetch_key(cluster).await?,
        None => None,
    };
    Ok(require_key(store, || key.clone().unwrap_or_else(token::generate), command).await?)
}

/// The key in the secret of the cluster; `None` if there is no such secret.
async fn fetch_key(cluster: &Cluster) -> Result<Option<Secret>, DefaultsError> {
    let name = format!("headwater/{}/publish", cluster.name);
    let Some(text) = Aws::in_region(&cluster.region).await.fetch_optional_secret(&name).await? else {
        return Ok(None);
    };
    match parse_key(text.reveal()) {
        Some(key) => Ok(Some(key)),
        None => Err(DefaultsError::InvalidSecret(name)),
    }
}

/// Returns the key in a secret's text: the whole text, or a field of a JSON object.
fn parse_key(text: &str) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Field {
        key: Secret,
    }
    let text = text.trim();
    let key = match text.starts_with('{') {
        true => serde_json::from_str::<Field>(text).ok()?.key,
        false => Secret::new(text),
    };
    with_key(AppDocument::open("live"), key.clone()).validate().is_ok().then_some(key)
}

/// Requires a key for publishing to each app that nobody has changed.
async fn require_key(store: &Store, key: impl Fn() -> Secret, command: &OperatorCommand) -> Result<(), RegistryError> {
    let key = key();
    for app in unchanged_apps(store).await? {
        let name = app.name.clone();
        if write(store, with_key(app, key.clone())).await? {
            let show = command.with(&format!("app show {name}"));
            log::warn!(app = name.as_str(); "publishing requires a key: `{show}` prints it");
        }
    }
    Ok(())
}

async fn open_to_private_networks(store: &Store, command: &OperatorCommand) -> Result<(), RegistryError> {
    for app in unchanged_apps(store).await? {
        let publish_networks = PRIVATE_NETWORKS.iter().filter_map(|network| network.parse().ok()).collect();
        write(store, AppDocument { publish_networks, ..app }).await?;
    }
    for app in store.apps().await?.iter().filter(|app| app.publish == Policy::Open) {
        let to = if app.publish_networks.is_empty() { "everybody" } else { "loopback and private networks" };
        let set = command.with(&format!("app set {} --publish key", app.name));
        log::warn!(app = app.name.as_str(); "publishing is open to {to}; `{set}` requires a key");
    }
    Ok(())
}

async fn unchanged_apps(store: &Store) -> Result<Vec<AppDocument>, RegistryError> {
    let mut apps = store.apps().await?;
    apps.retain(|app| app.revision == 0);
    Ok(apps)
}

/// Writes an app; false if another node or an administrator was faster.
async fn write(store: &Store, app: AppDocument) -> Result<bool, RegistryError> {
    match store.put_app(&app).await {
        Ok(_) => Ok(true),
        Err(RegistryError::Changed { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

fn with_key(app: AppDocument, key: Secret) -> AppDocument {
    AppDocument { publish: Policy::Key, publish_key: Some(key), ..app }
}

/// How long a first boot waits for a shared registry and AWS together.
const SHARED_REGISTRY_TIMEOUT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::PathBuf;

    use headwater_registry::Embedded;

    use super::*;

    fn command() -> OperatorCommand {
        OperatorCommand::new(None, None)
    }

    struct TestRegistry {
        folder: PathBuf,
        store: Store,
    }

    impl TestRegistry {
        fn new() -> Self {
            let folder = std::env::temp_dir().join(format!("headwaterd-app-defaults-{:016x}", rand::random::<u64>()));
            std::fs::create_dir(&folder).unwrap();
            let store = Store::Embedded(Embedded::open(&folder).unwrap());
            Self { folder, store }
        }

        async fn app(&self, name: &str) -> AppDocument {
            self.store.apps().await.unwrap().into_iter().find(|app| app.name == name).unwrap()
        }
    }

    impl Drop for TestRegistry {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    #[tokio::test]
    async fn key_is_required_by_apps_that_nobody_has_changed() {
        let registry = TestRegistry::new();
        let opened = registry.store.put_app(&AppDocument::open("LiveApp")).await.unwrap();
        require_key(&registry.store, token::generate, &command()).await.unwrap();
        let live = registry.app("live").await;
        assert_eq!((live.publish, live.play, live.validate()), (Policy::Key, Policy::Open, Ok(())));
        assert_eq!(registry.app("LiveApp").await, opened);
        require_key(&registry.store, token::generate, &command()).await.unwrap();
        assert_eq!(registry.app("live").await, live, "the next boot keeps the key");
    }

    #[tokio::test]
    async fn laptop_is_open_to_private_networks_and_to_no_others() {
        let registry = TestRegistry::new();
        open_to_private_networks(&registry.store, &command()).await.unwrap();
        let live = registry.app("live").await;
        assert_eq!(
            (live.publish, live.revision, live.publish_networks.len()),
            (Policy::Open, 1, PRIVATE_NETWORKS.len())
        );
        let may_publish = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            live.publish_networks.iter().any(|network| network.contains(address))
        };
        for private in ["127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "fd00::1", "fe80::1"] {
            assert!(may_publish(private), "{private}");
        }
        for public in ["203.0.113.7", "172.32.0.1", "2001:db8::1", "0.0.0.0"] {
            assert!(!may_publish(public), "{public}");
        }
        open_to_private_networks(&registry.store, &command()).await.unwrap();
        assert_eq!(registry.app("live").await, live);
    }

    #[test]
    fn secret_is_a_key_or_json_with_a_key() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse_key(text).as_ref().map(Secret::reveal), expected, "{text}");
        };
        check(" a-long-key\n", Some("a-long-key"));
        check(r#"{"key": "a-long-key", "comment": "x"}"#, Some("a-long-key"));
        for useless in ["", "short", "{}", "with space", r#"{"key": "short"}"#, r#"{"key": 123456789012}"#] {
            check(useless, None);
        }
    }
}
