//! Apps in MongoDB: `{ _id, document }`.

use headwater_api::documents::AppDocument;

use super::{MongoDb, documents, schema};
use crate::{Apps, RegistryError};

impl Apps for MongoDb {
    async fn apps(&self) -> Result<Vec<AppDocument>, RegistryError> {
        documents::all(self, schema::APPS).await
    }

    async fn put_app(&self, app: &AppDocument) -> Result<(), RegistryError> {
        documents::put(self, schema::APPS, &app.name, app).await
    }

    async fn remove_app(&self, name: &str) -> Result<bool, RegistryError> {
        documents::remove(self, schema::APPS, name).await
    }
}
