//! Reading and writing documents by id, for every subject.

use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::ReturnDocument;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::values::{collect, decode_field, encode};
use super::{MongoDb, failure};
use crate::RegistryError;

/// Attempts of a step that concurrent writers of the same id may spoil. Each spoiled attempt means
/// that another writer has succeeded.
const MAX_ATTEMPTS: usize = 10;

/// All documents of a collection, sorted by id.
pub(super) async fn all<T: DeserializeOwned>(registry: &MongoDb, name: &'static str) -> Result<Vec<T>, RegistryError> {
    find(registry, name, format!("list the {name}"), vec![doc! { "$sort": { "_id": 1 } }]).await
}

/// The document with an id.
pub(super) async fn one<T: DeserializeOwned>(
    registry: &MongoDb,
    name: &'static str,
    id: &str,
) -> Result<Option<T>, RegistryError> {
    let stages = vec![doc! { "$match": { "_id": id } }];
    Ok(find(registry, name, format!("read {id} of the {name}"), stages).await?.pop())
}

async fn find<T: DeserializeOwned>(
    registry: &MongoDb,
    name: &'static str,
    attempted: String,
    stages: Vec<Document>,
) -> Result<Vec<T>, RegistryError> {
    let collection = registry.collection(name, &attempted).await?;
    let found = registry.attempt(&attempted, collect(collection.aggregate(stages))).await?;
    let decoded: mongodb::error::Result<Vec<T>> = found.iter().map(|found| decode_field(found, "document")).collect();
    decoded.map_err(|e| registry.call_failed(&attempted, e))
}

/// Writes a document; replaces one with the same id.
pub(super) async fn put<T: Serialize>(
    registry: &MongoDb,
    name: &'static str,
    id: &str,
    document: &T,
) -> Result<(), RegistryError> {
    let attempted = format!("write {id} of the {name}");
    let collection = registry.collection(name, &attempted).await?;
    let fields = doc! { "document": encode(document).map_err(|e| registry.call_failed(&attempted, e))? };
    for _ in 0..MAX_ATTEMPTS {
        let replace = collection.replace_one(doc! { "_id": id }, fields.clone()).upsert(true);
        match registry.attempt(&attempted, replace.into_future()).await {
            Ok(_) => return Ok(()),
            Err(e) if failure::is_duplicate(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Err(failure::too_many_conflicts(&attempted, registry.servers()))
}

/// Writes a document with a new id, and `fields` next to it.
///
/// # Errors
/// [`RegistryError::Exists`] if the id exists.
pub(super) async fn insert<T: Serialize>(
    registry: &MongoDb,
    name: &'static str,
    id: &str,
    document: &T,
    mut fields: Document,
) -> Result<(), RegistryError> {
    let what = &name[..name.len() - 1];
    let attempted = format!("create {what} {id}");
    let collection = registry.collection(name, &attempted).await?;
    fields.insert("document", encode(document).map_err(|e| registry.call_failed(&attempted, e))?);
    match registry.attempt(&attempted, collection.insert_one(fields).into_future()).await {
        Ok(_) => Ok(()),
        Err(e) if failure::is_duplicate(&e) => Err(RegistryError::Exists { what, id: id.to_owned() }),
        Err(e) => Err(e),
    }
}

/// Removes a document. Returns false if it did not exist.
pub(super) async fn remove(registry: &MongoDb, name: &'static str, id: &str) -> Result<bool, RegistryError> {
    let attempted = format!("remove {id} of the {name}");
    let collection = registry.collection(name, &attempted).await?;
    let deleted = registry.attempt(&attempted, collection.delete_one(doc! { "_id": id }).into_future()).await?;
    Ok(deleted.deleted_count > 0)
}

/// Updates the document that `filter`, which contains an `_id`, finds, and returns the updated
/// document. If the id does not exist, `empty` is inserted first. Returns `None` if the id exists
/// and the rest of the filter does not match.
///
/// Deliberately two steps: in FerretDB, an upsert by pipeline that collides with another one fails
/// in several ways.
pub(super) async fn update_or_insert(
    registry: &MongoDb,
    attempted: &str,
    collection: &Collection<Document>,
    filter: Document,
    update: Vec<Document>,
    mut empty: Document,
) -> Result<Option<Document>, RegistryError> {
    let id = filter.get("_id").cloned().unwrap_or(Bson::Null);
    empty.insert("_id", id.clone());
    for _ in 0..MAX_ATTEMPTS {
        let call =
            collection.find_one_and_update(filter.clone(), update.clone()).return_document(ReturnDocument::After);
        if let Some(written) = registry.attempt(attempted, call.into_future()).await? {
            return Ok(Some(written));
        }
        match registry.attempt(attempted, collection.insert_one(empty.clone()).into_future()).await {
            Ok(_) => {}
            Err(e) if failure::is_duplicate(&e) => {
                let matching = registry.attempt(attempted, collection.find_one(filter.clone()).into_future()).await?;
                let any = registry.attempt(attempted, collection.find_one(doc! { "_id": &id }).into_future()).await?;
                if matching.is_none() && any.is_some() {
                    return Ok(None);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Err(failure::too_many_conflicts(attempted, registry.servers()))
}
