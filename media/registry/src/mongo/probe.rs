//! The probe: whether the database accepts a write, and its clock.

use mongodb::bson::{Document, doc};

use super::{MongoDb, documents, schema, values};
use crate::{Registry, RegistryError};

impl Registry for MongoDb {
    async fn probe(&self) -> Result<u64, RegistryError> {
        let attempted = "write a probe";
        let meta = self.collection(schema::META, attempted).await?;
        let now = vec![doc! { "$set": { "at": "$$NOW" } }];
        let (filter, empty) = (doc! { "_id": "probe" }, Document::new());
        let written = documents::update_or_insert(self, attempted, &meta, filter, now, empty).await?;
        Ok(values::time_ms(&written.unwrap_or_default(), "at").max(0) as u64)
    }
}
