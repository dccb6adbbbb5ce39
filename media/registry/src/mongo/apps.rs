//! Apps in MongoDB: `{ _id, document }`.

use headwater_api::documents::AppDocument;
use mongodb::bson::{Bson, doc};

use super::values::{encode, to_i64};
use super::{MongoDb, documents, schema};
use crate::apps::{next_revision, outcome_of_conflict};
use crate::{Apps, RegistryError};

impl Apps for MongoDb {
    async fn apps(&self) -> Result<Vec<AppDocument>, RegistryError> {
        documents::all(self, schema::APPS).await
    }

    async fn put_app(&self, app: &AppDocument) -> Result<AppDocument, RegistryError> {
        let attempted = format!("write {} of the apps", app.name);
        let apps = self.collection(schema::APPS, &attempted).await?;
        let written = next_revision(app);
        let document = encode(&written).map_err(|e| self.call_failed(&attempted, e))?;
        let revision: Bson = match app.revision {
            // Documents of earlier versions have none, which null matches.
            0 => doc! { "$in": [0_i64, Bson::Null] }.into(),
            revision => to_i64(revision).into(),
        };
        let filter = doc! { "_id": &app.name, "document.revision": revision };
        let replace = apps.replace_one(filter, doc! { "document": document });
        if self.attempt(&attempted, replace.into_future()).await?.matched_count > 0 {
            return Ok(written);
        }
        if app.revision == 0 {
            let new = documents::insert(self, schema::APPS, &app.name, &written, doc! { "_id": &app.name });
            match new.await {
                Ok(()) => return Ok(written),
                Err(RegistryError::Exists { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        outcome_of_conflict(written, documents::one(self, schema::APPS, &app.name).await?)
    }

    async fn remove_app(&self, name: &str) -> Result<bool, RegistryError> {
        documents::remove(self, schema::APPS, name).await
    }
}
