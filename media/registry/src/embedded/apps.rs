//! Apps in the file.

use headwater_api::documents::{AppDocument, DEFAULT_APPS};
use redb::{ReadableTable as _, TableDefinition};

use super::Embedded;
use super::file::{Table, encode};
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

    async fn put_app(&self, app: &AppDocument) -> Result<(), RegistryError> {
        self.put(APPS, &app.name, app)
    }

    async fn remove_app(&self, name: &str) -> Result<bool, RegistryError> {
        self.remove(APPS, name)
    }
}

const APPS: Table = TableDefinition::new("apps");
