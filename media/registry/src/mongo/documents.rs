//! Apps, recordings, users and tokens in MongoDB: `{ _id, document, … }`, where what stands beside `document` is what the
//! database itself looks at. Also how documents are turned into MongoDB's and back.

use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::recording::{RecordingDocument, RecordingQuery};
use headwater_api::token::{Grant, TokenDocument};
use mongodb::Collection;
use mongodb::action::Aggregate;
use mongodb::bson::{self, Bson, DateTime, Document, doc};
use mongodb::error::Result;
use mongodb::options::ReturnDocument;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{MongoDb, failure, schema};
use crate::RegistryError;

/// All documents of a collection, sorted by id.
pub(super) async fn all<T: DeserializeOwned>(
    registry: &MongoDb,
    name: &'static str,
) -> std::result::Result<Vec<T>, RegistryError> {
    find(registry, name, format!("list the {name}"), vec![doc! { "$sort": { "_id": 1 } }]).await
}

/// The document of an id.
pub(super) async fn one<T: DeserializeOwned>(
    registry: &MongoDb,
    name: &'static str,
    id: &str,
) -> std::result::Result<Option<T>, RegistryError> {
    let stages = vec![doc! { "$match": { "_id": id } }];
    Ok(find(registry, name, format!("read {id} of the {name}"), stages).await?.pop())
}

pub(super) async fn recordings(
    registry: &MongoDb,
    query: &RecordingQuery,
) -> std::result::Result<Vec<RecordingDocument>, RegistryError> {
    if query.limit == 0 {
        return Ok(Vec::new());
    }
    let mut filter = Document::new();
    if let Some(app) = &query.app {
        filter.insert("app", app);
    }
    if let Some(stream) = &query.stream {
        filter.insert("stream", stream.as_str());
    }
    let stages = vec![
        doc! { "$match": filter },
        doc! { "$sort": { "started_at_ms": -1, "_id": 1 } },
        doc! { "$skip": long(query.offset as u64) },
        doc! { "$limit": long(query.limit as u64) },
    ];
    find(registry, schema::RECORDINGS, "list the recordings".to_owned(), stages).await
}

async fn find<T: DeserializeOwned>(
    registry: &MongoDb,
    name: &'static str,
    attempted: String,
    stages: Vec<Document>,
) -> std::result::Result<Vec<T>, RegistryError> {
    let collection = registry.collection(name, &attempted).await?;
    let found = registry.attempt(&attempted, collect(collection.aggregate(stages))).await?;
    let decoded: Result<Vec<T>> = found.iter().map(|found| decode_field(found, "document")).collect();
    decoded.map_err(|e| failure::failed(&attempted, registry.servers(), e))
}

/// Writes a document; one of the same id is replaced.
pub(super) async fn put<T: Serialize>(
    registry: &MongoDb,
    name: &'static str,
    id: &str,
    document: &T,
) -> std::result::Result<(), RegistryError> {
    write(registry, name, id, document, Document::new()).await
}

pub(super) async fn put_recording(
    registry: &MongoDb,
    recording: &RecordingDocument,
) -> std::result::Result<(), RegistryError> {
    let beside = doc! {
        "app": recording.stream.app(),
        "stream": recording.stream.as_str(),
        "started_at_ms": long(recording.started_at_ms),
    };
    write(registry, schema::RECORDINGS, &recording.id, recording, beside).await
}

async fn write<T: Serialize>(
    registry: &MongoDb,
    name: &'static str,
    id: &str,
    document: &T,
    mut fields: Document,
) -> std::result::Result<(), RegistryError> {
    let attempted = format!("write {id} of the {name}");
    let collection = registry.collection(name, &attempted).await?;
    let document = encode(document).map_err(|e| failure::failed(&attempted, registry.servers(), e))?;
    fields.insert("document", document);
    for _ in 0..INSERTIONS {
        let replace = collection.replace_one(doc! { "_id": id }, fields.clone()).upsert(true);
        match registry.attempt(&attempted, replace.into_future()).await {
            Ok(_) => return Ok(()),
            Err(e) if failure::is_duplicate(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Err(failure::busy(&attempted, registry.servers()))
}

/// Writes a document whose id must be free.
pub(super) async fn create<T: Serialize>(
    registry: &MongoDb,
    name: &'static str,
    id: &str,
    document: &T,
) -> std::result::Result<(), RegistryError> {
    insert(registry, name, id, document, doc! { "_id": id }).await
}

pub(super) async fn create_token(registry: &MongoDb, token: &TokenDocument) -> std::result::Result<(), RegistryError> {
    let fields = doc! {
        "_id": &token.digest,
        "stream": token.stream.as_str(),
        "grants": to_bson(&token.grants).unwrap_or(Bson::Null),
        "used": false,
        "expire_at": DateTime::from_millis(long(token.expires_at_ms)),
    };
    insert(registry, schema::TOKENS, &token.digest, token, fields).await
}

async fn insert<T: Serialize>(
    registry: &MongoDb,
    name: &'static str,
    id: &str,
    document: &T,
    mut fields: Document,
) -> std::result::Result<(), RegistryError> {
    let what = &name[..name.len() - 1];
    let attempted = format!("create {what} {id}");
    let collection = registry.collection(name, &attempted).await?;
    let document = encode(document).map_err(|e| failure::failed(&attempted, registry.servers(), e))?;
    fields.insert("document", document);
    match registry.attempt(&attempted, collection.insert_one(fields).into_future()).await {
        Ok(_) => Ok(()),
        Err(e) if failure::is_duplicate(&e) => Err(RegistryError::Exists { what, id: id.to_owned() }),
        Err(e) => Err(e),
    }
}

/// Marks a token as used. It stays until it expires, so that it cannot be made a second time.
pub(super) async fn consume_token(
    registry: &MongoDb,
    digest: &str,
    stream: &StreamName,
    grants: Grant,
) -> std::result::Result<bool, RegistryError> {
    let attempted = format!("use up a token of stream {stream}");
    let tokens = registry.collection(schema::TOKENS, &attempted).await?;
    let grants = to_bson(&grants).map_err(|e| failure::failed(&attempted, registry.servers(), e))?;
    let filter = doc! { "_id": digest, "stream": stream.as_str(), "grants": grants, "used": false };
    let used = doc! { "$set": { "used": true, "used_at": "$$NOW" } };
    let call = tokens.find_one_and_update(filter, vec![used]).return_document(ReturnDocument::After);
    let token = registry.attempt(&attempted, call.into_future()).await?;
    Ok(token.is_some_and(|token| time_ms(&token, "used_at") < time_ms(&token, "expire_at")))
}

pub(super) async fn remove(
    registry: &MongoDb,
    name: &'static str,
    id: &str,
) -> std::result::Result<bool, RegistryError> {
    let attempted = format!("remove {id} of the {name}");
    let collection = registry.collection(name, &attempted).await?;
    let deleted = registry.attempt(&attempted, collection.delete_one(doc! { "_id": id }).into_future()).await?;
    Ok(deleted.deleted_count > 0)
}

pub(super) async fn probe(registry: &MongoDb) -> std::result::Result<u64, RegistryError> {
    let attempted = "write a probe";
    let meta = registry.collection(schema::META, attempted).await?;
    let now = vec![doc! { "$set": { "at": "$$NOW" } }];
    let written = update_or_insert(registry, attempted, &meta, doc! { "_id": "probe" }, now, Document::new()).await?;
    Ok(time_ms(&written.unwrap_or_default(), "at").max(0) as u64)
}

/// Updates the document that `filter`, with an `_id`, finds, and gives it as it is then. If the id is free, the document is
/// first inserted with `empty`. None if there is a document of that id that the rest of the filter does not find.
///
/// Two steps on purpose: an upsert by pipeline that collides with another fails in more than one way in FerretDB.
pub(super) async fn update_or_insert(
    registry: &MongoDb,
    attempted: &str,
    collection: &Collection<Document>,
    filter: Document,
    update: Vec<Document>,
    mut empty: Document,
) -> std::result::Result<Option<Document>, RegistryError> {
    let id = filter.get("_id").cloned().unwrap_or(Bson::Null);
    empty.insert("_id", id.clone());
    for _ in 0..INSERTIONS {
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
    Err(failure::busy(attempted, registry.servers()))
}

/// Tries of a step that others of the same id may spoil; each spoiled one means that another's succeeded.
const INSERTIONS: usize = 10;

// --- MongoDB's documents ----------------------------------------------------------------------------------------------

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Document> {
    Ok(bson::serialize_to_document(value)?)
}

fn to_bson<T: Serialize>(value: &T) -> Result<Bson> {
    Ok(bson::serialize_to_bson(value)?)
}

pub(super) fn decode<T: DeserializeOwned>(document: Document) -> Result<T> {
    Ok(bson::deserialize_from_document(document)?)
}

/// A field that holds a document of ours; one that is not there reads as null.
pub(super) fn decode_field<T: DeserializeOwned>(document: &Document, field: &str) -> Result<T> {
    Ok(bson::deserialize_from_bson(document.get(field).cloned().unwrap_or(Bson::Null))?)
}

/// All that an aggregation gives.
pub(super) async fn collect(aggregate: Aggregate<'_>) -> Result<Vec<Document>> {
    let mut cursor = aggregate.await?;
    let mut found = Vec::new();
    while cursor.advance().await? {
        found.push(cursor.deserialize_current()?);
    }
    Ok(found)
}

/// A date in Unix milliseconds; 0 if it is not there.
pub(super) fn time_ms(document: &Document, field: &str) -> i64 {
    document.get_datetime(field).map_or(0, |at| at.timestamp_millis())
}

/// A date by this machine's clock: for documents that are about to get a better one.
pub(super) fn hence(duration: Duration) -> DateTime {
    DateTime::from_millis(DateTime::now().timestamp_millis().saturating_add(millis(duration)))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// MongoDB has no unsigned numbers.
pub(super) fn long(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
