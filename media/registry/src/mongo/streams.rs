//! Streams in MongoDB: `{ _id, owner, boot_epoch, epoch, offer, claimed_at, lease_until, expire_at
//! }`; `owner` is null once the stream is released.
//!
//! A claim is one update that is decided inside the database: it reads the document and the
//! database's clock, and writes either the new owner or the previous values. The owner in the
//! returned document is the winner.

use std::collections::HashSet;

use headwater_api::StreamName;
use headwater_api::documents::{BootEpoch, Claim, NodeIncarnation, StreamOffer, StreamRecord};
use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};

use super::documents::update_or_insert;
use super::values::{as_millis, collect, decode_field, encode, from_now, time_ms, to_i64};
use super::{MongoDb, failure, schema};
use crate::{RegistryError, Streams};

impl Streams for MongoDb {
    async fn claim(
        &self,
        owner: &NodeIncarnation,
        name: &StreamName,
        offer: &StreamOffer,
        resumes: Option<u64>,
    ) -> Result<Claim, RegistryError> {
        let attempted = format!("claim stream {name}");
        let streams = self.collection(schema::STREAMS, &attempted).await?;
        let offer = encode(offer).map_err(|e| self.call_failed(&attempted, e))?;
        let update = claim_update(self, owner, offer, resumes);
        let (filter, empty) =
            (doc! { "_id": name.as_str() }, doc! { "expire_at": from_now(self.timing().stream_retention) });
        let written = update_or_insert(self, &attempted, &streams, filter, update, empty).await?.unwrap_or_default();
        match (owner_of(&written), written.get_i64("epoch")) {
            (Some(winner), Ok(epoch)) if winner == *owner => {
                Ok(Claim { name: name.clone(), owner: winner, epoch: epoch as u64 })
            }
            (winner, _) => {
                let owner = winner.map_or_else(String::new, |winner| winner.node);
                Err(RegistryError::Taken { name: name.clone(), owner })
            }
        }
    }

    async fn renew(&self, owner: &NodeIncarnation, held: &[Claim]) -> Result<Vec<StreamName>, RegistryError> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let attempted = format!("renew the streams of node {}", owner.node);
        let streams = self.collection(schema::STREAMS, &attempted).await?;
        let mut filter = owned_by(owner);
        filter.insert("_id", doc! { "$in": held.iter().map(|c| c.name.as_str()).collect::<Vec<_>>() });
        filter.insert("epoch", doc! { "$in": held.iter().map(|c| to_i64(c.epoch)).collect::<Vec<_>>() });
        let (lease_until, expire_at) = lease_expressions(self);
        let set = doc! { "$set": { "lease_until": lease_until, "expire_at": expire_at } };
        if update_all(self, &attempted, &streams, &filter, set).await? == held.len() as u64 {
            return Ok(Vec::new());
        }
        let found = self.attempt(&attempted, collect(streams.aggregate([doc! { "$match": filter }]))).await?;
        let renewed: HashSet<(&str, u64)> =
            found.iter().filter_map(|d| Some((d.get_str("_id").ok()?, d.get_i64("epoch").ok()? as u64))).collect();
        let is_lost = |claim: &&Claim| !renewed.contains(&(claim.name.as_str(), claim.epoch));
        Ok(held.iter().filter(is_lost).map(|claim| claim.name.clone()).collect())
    }

    async fn release(&self, claim: &Claim) -> Result<bool, RegistryError> {
        let attempted = format!("release stream {}", claim.name);
        let streams = self.collection(schema::STREAMS, &attempted).await?;
        let mut filter = owned_by(&claim.owner);
        filter.insert("_id", claim.name.as_str());
        filter.insert("epoch", to_i64(claim.epoch));
        let update = streams.update_one(filter, vec![release_update()]);
        Ok(self.attempt(&attempted, update.into_future()).await?.matched_count > 0)
    }

    async fn release_all(&self, owner: &NodeIncarnation) -> Result<u64, RegistryError> {
        let attempted = format!("release the streams of node {}", owner.node);
        let streams = self.collection(schema::STREAMS, &attempted).await?;
        update_all(self, &attempted, &streams, &owned_by(owner), release_update()).await
    }

    async fn stream(&self, name: &StreamName) -> Result<Option<StreamRecord>, RegistryError> {
        let filter = doc! { "_id": name.as_str(), "owner": { "$ne": null } };
        Ok(list(self, format!("look for stream {name}"), filter).await?.pop())
    }

    async fn streams(&self) -> Result<Vec<StreamRecord>, RegistryError> {
        list(self, "list the streams".to_owned(), doc! { "owner": { "$ne": null } }).await
    }
}

/// The stages of a claim. Each field gets a new value if the claim is granted, else its old one.
fn claim_update(registry: &MongoDb, owner: &NodeIncarnation, offer: Document, resumes: Option<u64>) -> Vec<Document> {
    let claimant = doc! { "$literal": &owner.node };
    let boot_epoch = to_i64(owner.epoch.0);
    let unowned = doc! { "$eq": [{ "$ifNull": ["$owner", null] }, null] };
    let expired = doc! { "$lte": [{ "$ifNull": ["$lease_until", "$$NOW"] }, "$$NOW"] };
    let owned_by_claimant =
        |compare: &str| doc! { "$and": [{ "$eq": ["$owner", &claimant] }, { compare: ["$boot_epoch", boot_epoch] }] };
    let granted = doc! { "$or": [&unowned, expired, owned_by_claimant("$lte")] };

    let new_epoch = doc! { "$max": [
        { "$toLong": "$$NOW" },
        { "$add": [{ "$ifNull": ["$epoch", 0_i64] }, 1_i64] },
        resumes.map_or(0, |epoch| to_i64(epoch) + 1),
    ] };
    // Continues if no other node has owned the name since: it is unknown, or this node was its last
    // owner.
    let continues: Bson = match resumes {
        Some(epoch) => doc! { "$and": [
            { "$eq": [{ "$ifNull": ["$epoch", to_i64(epoch)] }, to_i64(epoch)] },
            { "$or": [&unowned, owned_by_claimant("$eq")] },
        ] }
        .into(),
        None => false.into(),
    };
    let epoch = doc! { "$cond": ["$_continues", resumes.map_or(0, to_i64), new_epoch] };
    let claimed_at = doc! { "$cond": ["$_continues", { "$ifNull": ["$claimed_at", "$$NOW"] }, "$$NOW"] };
    let (lease_until, expire_at) = lease_expressions(registry);
    let new_or_old = |new: Bson, field: &str| doc! { "$cond": ["$_granted", new, field] };
    vec![
        doc! { "$set": { "_granted": granted, "_continues": continues } },
        doc! { "$set": {
            "owner": new_or_old(claimant.clone().into(), "$owner"),
            "boot_epoch": new_or_old(boot_epoch.into(), "$boot_epoch"),
            "epoch": new_or_old(epoch.into(), "$epoch"),
            "offer": new_or_old(doc! { "$literal": offer }.into(), "$offer"),
            "claimed_at": new_or_old(claimed_at.into(), "$claimed_at"),
            "lease_until": new_or_old(lease_until.into(), "$lease_until"),
            "expire_at": new_or_old(expire_at.into(), "$expire_at"),
        } },
        doc! { "$unset": ["_granted", "_continues"] },
    ]
}

/// Updates all documents that match, and returns their number. The driver repeats a call at a new
/// primary only if it concerns one document; here it is repeated once, because these updates may be
/// made twice.
async fn update_all(
    registry: &MongoDb,
    attempted: &str,
    streams: &Collection<Document>,
    filter: &Document,
    set: Document,
) -> Result<u64, RegistryError> {
    let update = vec![set];
    let call = || registry.attempt(attempted, streams.update_many(filter.clone(), update.clone()).into_future());
    let updated = match call().await {
        Err(e) if failure::is_failover(&e) => call().await?,
        outcome => outcome?,
    };
    Ok(updated.matched_count)
}

/// The live streams that the filter finds, sorted by name.
async fn list(registry: &MongoDb, attempted: String, filter: Document) -> Result<Vec<StreamRecord>, RegistryError> {
    let streams = registry.collection(schema::STREAMS, &attempted).await?;
    let stages = [doc! { "$match": filter }, doc! { "$sort": { "_id": 1 } }, doc! { "$addFields": { "now": "$$NOW" } }];
    let found = registry.attempt(&attempted, collect(streams.aggregate(stages))).await?;
    let records =
        found.iter().filter_map(|found| decode_record(found).transpose()).collect::<mongodb::error::Result<_>>();
    records.map_err(|e| registry.call_failed(&attempted, e))
}

/// `None` if the stream is not live.
fn decode_record(found: &Document) -> mongodb::error::Result<Option<StreamRecord>> {
    let now_ms = time_ms(found, "now");
    let lease_left_ms = time_ms(found, "lease_until") - now_ms;
    let Some(owner) = owner_of(found).filter(|_| lease_left_ms > 0) else { return Ok(None) };
    let epoch = found.get_i64("epoch").unwrap_or_default() as u64;
    Ok(Some(StreamRecord {
        claim: Claim { name: decode_field(found, "_id")?, owner, epoch },
        offer: decode_field(found, "offer")?,
        age_ms: (now_ms - time_ms(found, "claimed_at")).max(0) as u64,
        lease_left_ms: lease_left_ms as u64,
    }))
}

fn owned_by(owner: &NodeIncarnation) -> Document {
    doc! { "owner": &owner.node, "boot_epoch": to_i64(owner.epoch.0) }
}

fn release_update() -> Document {
    doc! { "$set": { "owner": null, "lease_until": "$$NOW" } }
}

fn owner_of(document: &Document) -> Option<NodeIncarnation> {
    let node = document.get_str("owner").ok()?.to_owned();
    Some(NodeIncarnation { node, epoch: BootEpoch(document.get_i64("boot_epoch").ok()? as u64) })
}

/// The end of a lease that begins now, and the expiry of its document.
fn lease_expressions(registry: &MongoDb) -> (Document, Document) {
    let lease_ms = as_millis(registry.timing().lease);
    let expiry_ms = lease_ms + as_millis(registry.timing().stream_retention);
    (doc! { "$add": ["$$NOW", lease_ms] }, doc! { "$add": ["$$NOW", expiry_ms] })
}
