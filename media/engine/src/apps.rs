//! Which apps exist, as every gateway asks before it lets a name in.
//!
//! Read from the registry at start; a gateway must not know where documents are kept. An engine that starts while a shared
//! registry is away, such as one that was started again after a crash, does not wait for it: its streams have waited long enough.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use headwater_api::app::DEFAULT_APPS;
use headwater_api::error::Chain;
use headwater_registry::{Registry as _, RegistryError, Store, spread};

/// The names of all apps. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub struct Apps(Arc<RwLock<BTreeSet<String>>>);

impl Apps {
    /// These apps and no others.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(RwLock::new(names.into_iter().collect())))
    }

    /// Those of the registry; of one that is away, those that every registry begins with, and the registry to
    /// [follow](Self::follow).
    ///
    /// # Errors
    /// If a registry of this node's own cannot be read.
    pub async fn read(registry: &Store) -> Result<(Self, Option<Store>), RegistryError> {
        let why = match tokio::time::timeout(START, registry.apps()).await {
            Ok(Ok(apps)) => return Ok((Self::new(apps.into_iter().map(|app| app.name)), None)),
            Ok(Err(e)) if matches!(registry, Store::Embedded(_)) => return Err(e),
            Ok(Err(e)) => Chain(&e).to_string(),
            Err(_) => format!("no answer within {} ms", START.as_millis()),
        };
        log::warn!(err = why.as_str(); "the apps of the registry are not known yet");
        Ok((Self::new(DEFAULT_APPS.map(str::to_owned)), Some(registry.clone())))
    }

    /// Asks a registry that was away until it answers. Ends then.
    pub async fn follow(self, registry: Store) {
        let apps = loop {
            match registry.apps().await {
                Ok(apps) => break apps,
                Err(_) => tokio::time::sleep(spread(PAUSE, rand::random_range(0.0..1.0))).await,
            }
        };
        log::info!(apps = apps.len(); "the apps of the registry are known");
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = apps.into_iter().map(|app| app.name).collect();
    }

    /// True if there is an app of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// A start does not wait longer for a shared registry.
const START: Duration = Duration::from_secs(1);
/// Between two questions to one that is away.
const PAUSE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use headwater_api::config::{self, RegistryKind};

    use super::*;

    #[tokio::test]
    async fn a_start_does_not_wait_for_a_registry_that_is_away_and_has_the_apps_that_all_begin_with() {
        let folder = std::env::temp_dir().join(format!("headwater-apps-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let uri_file = folder.join("uri");
        // Nobody listens there.
        std::fs::write(&uri_file, "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300000").unwrap();
        let config = config::Registry { kind: RegistryKind::MongoDb, uri_file: Some(uri_file) };
        let store = Store::open(&config, &folder).await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let begun = std::time::Instant::now();
        let (apps, away) = Apps::read(&store).await.unwrap();
        assert!(begun.elapsed() < 5 * START && away.is_some(), "{:?}", begun.elapsed());
        assert_eq!(apps.names(), ["LiveApp", "live"]);
    }
}
