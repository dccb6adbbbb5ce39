//! The set of existing apps, which every gateway checks before it accepts a stream name.
//!
//! Read from the registry at start; a gateway must not know where documents are stored. An engine
//! that starts while a shared registry is unreachable does not wait for it, because after a crash
//! its publishers and viewers are already reconnecting.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use headwater_api::documents::DEFAULT_APPS;
use headwater_api::error::Chain;
use headwater_registry::{Apps as _, RegistryError, Store, jitter};

/// The names of all apps; clones share them.
#[derive(Debug, Clone)]
pub struct Apps(Arc<RwLock<BTreeSet<String>>>);

impl Apps {
    /// A fixed set of apps.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(RwLock::new(names.into_iter().collect())))
    }

    /// Reads the apps from the registry. If a shared registry does not answer within
    /// `LOAD_TIMEOUT`, returns the default apps, and the registry for
    /// [`Self::load_when_available`].
    ///
    /// # Errors
    /// If the embedded registry cannot be read.
    pub async fn load(registry: &Store) -> Result<(Self, Option<Store>), RegistryError> {
        let why = match tokio::time::timeout(LOAD_TIMEOUT, registry.apps()).await {
            Ok(Ok(apps)) => return Ok((Self::new(apps.into_iter().map(|app| app.name)), None)),
            Ok(Err(e)) if matches!(registry, Store::Embedded(_)) => return Err(e),
            Ok(Err(e)) => Chain(&e).to_string(),
            Err(_) => format!("no answer within {} ms", LOAD_TIMEOUT.as_millis()),
        };
        log::warn!(err = why.as_str(); "could not read the apps from the registry, using the default apps");
        Ok((Self::new(DEFAULT_APPS.map(str::to_owned)), Some(registry.clone())))
    }

    /// Retries until the registry answers, then replaces the set of apps.
    pub async fn load_when_available(self, registry: Store) {
        let apps = loop {
            match registry.apps().await {
                Ok(apps) => break apps,
                Err(_) => tokio::time::sleep(jitter(RETRY_INTERVAL, rand::random_range(0.0..1.0))).await,
            }
        };
        log::info!(apps = apps.len(); "apps read from the registry");
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = apps.into_iter().map(|app| app.name).collect();
    }

    /// True if an app of this name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Maximum time that a start waits for a shared registry.
const LOAD_TIMEOUT: Duration = Duration::from_secs(1);
/// Mean delay between two attempts to reach the registry.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use headwater_api::config::{self, RegistryKind};

    use super::*;

    #[tokio::test]
    async fn start_uses_the_default_apps_while_the_registry_is_unreachable() {
        let folder = std::env::temp_dir().join(format!("headwater-apps-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let uri_file = folder.join("uri");
        // A closed port.
        std::fs::write(&uri_file, "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300000").unwrap();
        let config = config::Registry { kind: RegistryKind::MongoDb, uri_file: Some(uri_file) };
        let store = Store::open(&config, &folder).await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let started = std::time::Instant::now();
        let (apps, registry) = Apps::load(&store).await.unwrap();
        assert!(started.elapsed() < 5 * LOAD_TIMEOUT && registry.is_some(), "{:?}", started.elapsed());
        assert_eq!(apps.names(), ["LiveApp", "live"]);
    }
}
