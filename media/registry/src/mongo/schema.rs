//! Collections and indexes. `docs/registry.md` gives the reason for each.

use std::time::Duration;

use headwater_api::documents::{AppDocument, DEFAULT_APPS, KEPT_AFTER_EXPIRY_MS, Policy};
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};

use super::failure;
use super::values::encode;

pub(super) const NODES: &str = "nodes";
pub(super) const STREAMS: &str = "streams";
pub(super) const APPS: &str = "apps";
pub(super) const USERS: &str = "users";
pub(super) const TOKENS: &str = "tokens";
pub(super) const META: &str = "meta";

/// Creates what is missing. Any number of nodes may do so concurrently and repeatedly. Independent
/// steps run concurrently, so that a slow database delays the caller by two round trips instead of
/// a dozen.
pub(super) async fn prepare(database: &Database) -> mongodb::error::Result<()> {
    tokio::try_join!(
        create_indexes(database, NODES, [("expire_at", doc! { "expire_at": 1 }, AT_THE_DATE)]),
        create_indexes(
            database,
            STREAMS,
            [
                ("expire_at", doc! { "expire_at": 1 }, AT_THE_DATE),
                ("owner", doc! { "owner": 1, "boot_epoch": 1 }, None)
            ]
        ),
        create_indexes(
            database,
            TOKENS,
            [
                ("expire_at", doc! { "expire_at": 1 }, Some(Duration::from_millis(KEPT_AFTER_EXPIRY_MS))),
                ("revoked_at", doc! { "revoked_at": 1 }, None),
                ("app", doc! { "app": 1, "created_at": -1 }, None),
            ]
        ),
        seed(database),
    )?;
    Ok(())
}

/// Documents are removed at the date in the field.
const AT_THE_DATE: Option<Duration> = Some(Duration::ZERO);

/// Creates the indexes of one collection: name, keys, and how long after the date in the field
/// documents are removed; `None`: never.
async fn create_indexes<const N: usize>(
    database: &Database,
    collection: &str,
    indexes: [(&str, Document, Option<Duration>); N],
) -> mongodb::error::Result<()> {
    let models = indexes.map(|(name, keys, expire_after)| {
        let mut options = IndexOptions::builder().name(name.to_owned()).build();
        options.expire_after = expire_after;
        IndexModel::builder().keys(keys).options(options).build()
    });
    database.collection::<Document>(collection).create_indexes(models).await.map(drop)
}

/// Writes the first documents of a new database.
async fn seed(database: &Database) -> mongodb::error::Result<()> {
    let meta = database.collection::<Document>(META);
    if meta.find_one(doc! { "_id": "schema" }).await?.is_none() {
        for name in DEFAULT_APPS {
            // Nobody may publish before the first node, or the operator, has decided.
            let app = AppDocument { publish: Policy::Closed, ..AppDocument::open(name) };
            let app = doc! { "$setOnInsert": { "document": encode(&app)? } };
            let apps = database.collection::<Document>(APPS);
            ignore_duplicate(apps.update_one(doc! { "_id": name }, app).upsert(true).await.map(drop))?;
        }
        ignore_duplicate(meta.insert_one(doc! { "_id": "schema", "version": 1 }).await.map(drop))?;
    }
    Ok(())
}

/// Accepts that another node has created the document in between.
fn ignore_duplicate(result: mongodb::error::Result<()>) -> mongodb::error::Result<()> {
    match result {
        Err(e) if failure::is_duplicate_key(&e) => Ok(()),
        other => other,
    }
}
