//! Conversions between Rust values and BSON.

use std::time::Duration;

use mongodb::action::Aggregate;
use mongodb::bson::{self, Bson, DateTime, Document};
use mongodb::error::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Document> {
    Ok(bson::serialize_to_document(value)?)
}

pub(super) fn to_bson<T: Serialize>(value: &T) -> Result<Bson> {
    Ok(bson::serialize_to_bson(value)?)
}

pub(super) fn decode<T: DeserializeOwned>(document: Document) -> Result<T> {
    Ok(bson::deserialize_from_document(document)?)
}

/// Decodes one field; a missing field decodes as null.
pub(super) fn decode_field<T: DeserializeOwned>(document: &Document, field: &str) -> Result<T> {
    Ok(bson::deserialize_from_bson(document.get(field).cloned().unwrap_or(Bson::Null))?)
}

/// All results of an aggregation.
pub(super) async fn collect(aggregate: Aggregate<'_>) -> Result<Vec<Document>> {
    let mut cursor = aggregate.await?;
    let mut found = Vec::new();
    while cursor.advance().await? {
        found.push(cursor.deserialize_current()?);
    }
    Ok(found)
}

/// A date in Unix milliseconds; 0 if it is missing.
pub(super) fn time_ms(document: &Document, field: &str) -> i64 {
    document.get_datetime(field).map_or(0, |at| at.timestamp_millis())
}

/// A date by this machine's clock, for documents that are about to get one by the database's.
pub(super) fn from_now(duration: Duration) -> DateTime {
    DateTime::from_millis(DateTime::now().timestamp_millis().saturating_add(as_millis(duration)))
}

pub(super) fn as_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// BSON has no unsigned integers. Saturates.
pub(super) fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
