//! Collections and indexes. `docs/registry.md` gives the reason for each.

use headwater_api::documents::{AppDocument, DEFAULT_APPS, Policy};
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
        create_indexes(database, NODES, [("expire_at", doc! { "expire_at": 1 }, true)]),
        create_indexes(
            database,
            STREAMS,
            [("expire_at", doc! { "expire_at": 1 }, true), ("owner", doc! { "owner": 1, "boot_epoch": 1 }, false)]
        ),
        create_indexes(
            database,
            TOKENS,
            [
                ("expire_at", doc! { "expire_at": 1 }, true),
                ("revoked_at", doc! { "revoked_at": 1 }, false),
                ("app", doc! { "app": 1, "created_at": -1 }, false),
            ]
        ),
        seed(database),
    )?;
    Ok(())
}

/// Creates the indexes of one collection: name, keys, and whether documents expire at the date in
/// the field.
async fn create_indexes<const N: usize>(
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
