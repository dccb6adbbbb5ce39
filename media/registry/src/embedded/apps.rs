//! Apps in the file.

use headwater_api::documents::{AppDocument, DEFAULT_APPS};
use redb::{ReadableTable as _, TableDefinition};

use super::Embedded;
use super::file::{Table, encode};
use crate::apps::{next_revision, outcome_of_conflict};
use crate::{Apps, RegistryError};

/// Writes the default apps into a new file.
pub(super) fn seed(registry: &Embedded) -> Result<(), RegistryError> {
    registry.write(APPS, |apps| {
        for name in DEFAULT_APPS {
            if apps.get(name)?.is_none() {
                apps.insert(name, encode(&AppDocument::open(name))?.as_slice())?;
            }
        }
        Ok(())
    })
}

impl Apps for Embedded {
    async fn apps(&self) -> Result<Vec<AppDocument>, RegistryError> {
        self.read_all(APPS)
    }

    async fn put_app(&self, app: &AppDocument) -> Result<AppDocument, RegistryError> {
        let written = next_revision(app);
        let current = self.write(APPS, |apps| {
            let current = match apps.get(app.name.as_str())? {
                Some(value) => Some(serde_json::from_slice::<AppDocument>(value.value())?),
                None => None,
            };
            let is_current = current.as_ref().map_or(0, |current| current.revision) == app.revision;
            if is_current {
                apps.insert(app.name.as_str(), encode(&written)?.as_slice())?;
            }
            Ok(if is_current { Some(written.clone()) } else { current })
        })?;
        outcome_of_conflict(written, current)
    }

    async fn remove_app(&self, name: &str) -> Result<bool, RegistryError> {
        self.remove(APPS, name)
    }
}

const APPS: Table = TableDefinition::new("apps");
