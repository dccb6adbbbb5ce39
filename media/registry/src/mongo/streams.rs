//! Streams in MongoDB: `{ _id, owner, boot_epoch, epoch, offer, claimed_at, lease_until, expire_at }`; `owner` is null once it has
//! let go.
//!
//! A claim is one update that decides inside the database: it reads the document and the database's clock, and writes either the
//! new owner or what was there. Whose name comes back is the owner.

use std::collections::HashSet;

use headwater_api::StreamName;
use headwater_api::node::{BootEpoch, Life};
use headwater_api::stream::{Claim, StreamOffer, StreamRecord};
use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};

use super::documents::{collect, decode_field, encode, hence, long, millis, time_ms, update_or_insert};
use super::{MongoDb, failure, schema};
use crate::RegistryError;

pub(super) async fn claim(
    registry: &MongoDb,
    owner: &Life,
    name: &StreamName,
    offer: &StreamOffer,
    resumes: Option<u64>,
) -> Result<Claim, RegistryError> {
    let attempted = format!("claim stream {name}");
    let streams = registry.collection(schema::STREAMS, &attempted).await?;
    let offer = encode(offer).map_err(|e| failure::failed(&attempted, registry.servers(), e))?;
    let update = claim_update(registry, owner, offer, resumes);
    let (filter, empty) = (doc! { "_id": name.as_str() }, doc! { "expire_at": hence(registry.0.timing.keep_streams) });
    let written = update_or_insert(registry, &attempted, &streams, filter, update, empty).await?.unwrap_or_default();
    match (owner_of(&written), written.get_i64("epoch")) {
        (Some(holder), Ok(epoch)) if holder == *owner => {
            Ok(Claim { name: name.clone(), owner: holder, epoch: epoch as u64 })
        }
        (holder, _) => {
            let owner = holder.map_or_else(String::new, |holder| holder.node);
            Err(RegistryError::Taken { name: name.clone(), owner })
        }
    }
}

/// The stages of a claim. Each field is new if the name is free for this owner, else what it was.
fn claim_update(registry: &MongoDb, owner: &Life, offer: Document, resumes: Option<u64>) -> Vec<Document> {
    let me = doc! { "$literal": &owner.node };
    let boot = long(owner.epoch.0);
    let nobody = doc! { "$eq": [{ "$ifNull": ["$owner", null] }, null] };
    let over = doc! { "$lte": [{ "$ifNull": ["$lease_until", "$$NOW"] }, "$$NOW"] };
    let mine = |at_most: &str| doc! { "$and": [{ "$eq": ["$owner", &me] }, { at_most: ["$boot_epoch", boot] }] };
    let free = doc! { "$or": [&nobody, over, mine("$lte")] };

    let new_epoch = doc! { "$max": [
        { "$toLong": "$$NOW" },
        { "$add": [{ "$ifNull": ["$epoch", 0_i64] }, 1_i64] },
        resumes.map_or(0, |epoch| long(epoch) + 1),
    ] };
    // Goes on: nobody has had the name since, because it is unknown, or its last owner is this one.
    let goes_on: Bson = match resumes {
        Some(epoch) => doc! { "$and": [
            { "$eq": [{ "$ifNull": ["$epoch", long(epoch)] }, long(epoch)] },
            { "$or": [&nobody, mine("$eq")] },
        ] }
        .into(),
        None => false.into(),
    };
    let epoch = doc! { "$cond": ["$_goes_on", resumes.map_or(0, long), new_epoch] };
    let claimed_at = doc! { "$cond": ["$_goes_on", { "$ifNull": ["$claimed_at", "$$NOW"] }, "$$NOW"] };
    let (lease_until, expire_at) = until(registry);
    let or_old = |new: Bson, field: &str| doc! { "$cond": ["$_free", new, field] };
    vec![
        doc! { "$set": { "_free": free, "_goes_on": goes_on } },
        doc! { "$set": {
            "owner": or_old(me.clone().into(), "$owner"),
            "boot_epoch": or_old(boot.into(), "$boot_epoch"),
            "epoch": or_old(epoch.into(), "$epoch"),
            "offer": or_old(doc! { "$literal": offer }.into(), "$offer"),
            "claimed_at": or_old(claimed_at.into(), "$claimed_at"),
            "lease_until": or_old(lease_until.into(), "$lease_until"),
            "expire_at": or_old(expire_at.into(), "$expire_at"),
        } },
        doc! { "$unset": ["_free", "_goes_on"] },
    ]
}

pub(super) async fn renew(registry: &MongoDb, owner: &Life, held: &[Claim]) -> Result<Vec<StreamName>, RegistryError> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let attempted = format!("renew the streams of node {}", owner.node);
    let streams = registry.collection(schema::STREAMS, &attempted).await?;
    let mut filter = of_life(owner);
    filter.insert("_id", doc! { "$in": held.iter().map(|c| c.name.as_str()).collect::<Vec<_>>() });
    filter.insert("epoch", doc! { "$in": held.iter().map(|c| long(c.epoch)).collect::<Vec<_>>() });
    let (lease_until, expire_at) = until(registry);
    let set = doc! { "$set": { "lease_until": lease_until, "expire_at": expire_at } };
    if update_all(registry, &attempted, &streams, &filter, set).await? == held.len() as u64 {
        return Ok(Vec::new());
    }
    let found = registry.attempt(&attempted, collect(streams.aggregate([doc! { "$match": filter }]))).await?;
    let kept: HashSet<(&str, u64)> =
        found.iter().filter_map(|d| Some((d.get_str("_id").ok()?, d.get_i64("epoch").ok()? as u64))).collect();
    Ok(held.iter().filter(|c| !kept.contains(&(c.name.as_str(), c.epoch))).map(|c| c.name.clone()).collect())
}

pub(super) async fn release(registry: &MongoDb, claim: &Claim) -> Result<bool, RegistryError> {
    let attempted = format!("let go of stream {}", claim.name);
    let streams = registry.collection(schema::STREAMS, &attempted).await?;
    let mut filter = of_life(&claim.owner);
    filter.insert("_id", claim.name.as_str());
    filter.insert("epoch", long(claim.epoch));
    let updated = registry.attempt(&attempted, streams.update_one(filter, vec![let_go()]).into_future()).await?;
    Ok(updated.matched_count > 0)
}

pub(super) async fn release_all(registry: &MongoDb, owner: &Life) -> Result<u64, RegistryError> {
    let attempted = format!("let go of the streams of node {}", owner.node);
    let streams = registry.collection(schema::STREAMS, &attempted).await?;
    update_all(registry, &attempted, &streams, &of_life(owner), let_go()).await
}

/// Updates all that match, and says how many. The driver repeats a call at a new primary only if it is about one document; this is
/// done here, once, for updates that may be made twice.
async fn update_all(
    registry: &MongoDb,
    attempted: &str,
    streams: &Collection<Document>,
    filter: &Document,
    set: Document,
) -> Result<u64, RegistryError> {
    let update = vec![set];
    let call = || registry.attempt(attempted, streams.update_many(filter.clone(), update.clone()).into_future());
    let done = match call().await {
        Err(e) if failure::is_fail_over(&e) => call().await?,
        done => done?,
    };
    Ok(done.matched_count)
}

/// All streams that live, or the one of that name, sorted by name.
pub(super) async fn list(registry: &MongoDb, name: Option<&StreamName>) -> Result<Vec<StreamRecord>, RegistryError> {
    let attempted = name.map_or_else(|| "list the streams".to_owned(), |name| format!("look for stream {name}"));
    let streams = registry.collection(schema::STREAMS, &attempted).await?;
    let mut filter = doc! { "owner": { "$ne": null } };
    if let Some(name) = name {
        filter.insert("_id", name.as_str());
    }
    let stages = [doc! { "$match": filter }, doc! { "$sort": { "_id": 1 } }, doc! { "$addFields": { "now": "$$NOW" } }];
    let found = registry.attempt(&attempted, collect(streams.aggregate(stages))).await?;
    let mut records = Vec::with_capacity(found.len());
    for found in found {
        let now_ms = time_ms(&found, "now");
        let lease_left_ms = time_ms(&found, "lease_until") - now_ms;
        if let Some(owner) = owner_of(&found).filter(|_| lease_left_ms > 0) {
            let record = || -> mongodb::error::Result<StreamRecord> {
                let epoch = found.get_i64("epoch").unwrap_or_default() as u64;
                Ok(StreamRecord {
                    claim: Claim { name: decode_field(&found, "_id")?, owner, epoch },
                    offer: decode_field(&found, "offer")?,
                    age_ms: (now_ms - time_ms(&found, "claimed_at")).max(0) as u64,
                    lease_left_ms: lease_left_ms as u64,
                })
            };
            records.push(record().map_err(|e| failure::failed(&attempted, registry.servers(), e))?);
        }
    }
    Ok(records)
}

fn of_life(owner: &Life) -> Document {
    doc! { "owner": &owner.node, "boot_epoch": long(owner.epoch.0) }
}

fn let_go() -> Document {
    doc! { "$set": { "owner": null, "lease_until": "$$NOW" } }
}

fn owner_of(document: &Document) -> Option<Life> {
    let node = document.get_str("owner").ok()?.to_owned();
    Some(Life { node, epoch: BootEpoch(document.get_i64("boot_epoch").ok()? as u64) })
}

/// End of a lease that begins now, and when its document may go.
fn until(registry: &MongoDb) -> (Document, Document) {
    let lease_ms = millis(registry.0.timing.lease);
    let kept_ms = lease_ms + millis(registry.0.timing.keep_streams);
    (doc! { "$add": ["$$NOW", lease_ms] }, doc! { "$add": ["$$NOW", kept_ms] })
}
