//! Collections and indexes. `docs/registry.md` says why each is there.

use headwater_api::app::{AppDocument, DEFAULT_APPS};
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};

use super::documents::encode;

pub(super) const NODES: &str = "nodes";
pub(super) const STREAMS: &str = "streams";
pub(super) const APPS: &str = "apps";
pub(super) const RECORDINGS: &str = "recordings";
pub(super) const USERS: &str = "users";
pub(super) const TOKENS: &str = "tokens";
pub(super) const META: &str = "meta";

/// Makes what is missing; any number of nodes may do so at the same time and again. What does not build on another is asked
/// for at once: a database that is slow to answer is waited for twice, not a dozen times.
pub(super) async fn prepare(database: &Database) -> mongodb::error::Result<()> {
    tokio::try_join!(
        index(database, NODES, [("expire_at", doc! { "expire_at": 1 }, true)]),
        index(
            database,
            STREAMS,
            [("expire_at", doc! { "expire_at": 1 }, true), ("owner", doc! { "owner": 1, "boot_epoch": 1 }, false),]
        ),
        index(database, TOKENS, [("expire_at", doc! { "expire_at": 1 }, true)]),
        index(
            database,
            RECORDINGS,
            [
                ("started", doc! { "started_at_ms": -1, "_id": 1 }, false),
                ("app_started", doc! { "app": 1, "started_at_ms": -1, "_id": 1 }, false),
                ("stream_started", doc! { "stream": 1, "started_at_ms": -1, "_id": 1 }, false),
            ]
        ),
        begin(database),
    )?;
    Ok(())
}

/// Indexes of one collection: name, keys, and whether documents go when the date in the field has come.
async fn index<const N: usize>(
    database: &Database,
    collection: &str,
    indexes: [(&str, Document, bool); N],
) -> mongodb::error::Result<()> {
    let models = indexes.map(|(name, keys, expires)| {
        let mut options = IndexOptions::builder().name(name.to_owned()).build();
        options.expire_after = expires.then_some(std::time::Duration::ZERO);
        IndexModel::builder().keys(keys).options(options).build()
    });
    database.collection::<Document>(collection).create_indexes(models).await.map(drop)
}

/// The first documents of a new database.
async fn begin(database: &Database) -> mongodb::error::Result<()> {
    let meta = database.collection::<Document>(META);
    if meta.find_one(doc! { "_id": "schema" }).await?.is_none() {
        for name in DEFAULT_APPS {
            let app = doc! { "$setOnInsert": { "document": encode(&AppDocument::open(name))? } };
            let apps = database.collection::<Document>(APPS);
            ignore_duplicate(apps.update_one(doc! { "_id": name }, app).upsert(true).await.map(drop))?;
        }
        ignore_duplicate(meta.insert_one(doc! { "_id": "schema", "version": 1 }).await.map(drop))?;
    }
    Ok(())
}

/// Somebody else made it in between: fine.
fn ignore_duplicate(result: mongodb::error::Result<()>) -> mongodb::error::Result<()> {
    match result {
        Err(e) if super::failure::is_duplicate_key(&e) => Ok(()),
        other => other,
    }
}
