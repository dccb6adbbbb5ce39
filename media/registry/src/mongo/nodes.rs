//! Nodes in MongoDB: `{ _id, boot_epoch, document, heartbeat, registered_at, heard_at, expire_at, gone }`.
//!
//! A node that was removed stays as `gone` until it expires, so that its next life is a later one.

use headwater_api::node::{BootEpoch, Heartbeat, Life, MAX_WATCHED, NodeDocument, NodeRecord};
use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};

use super::documents::{collect, decode, decode_field, encode, hence, long, millis, time_ms, update_or_insert};
use super::{MongoDb, failure, schema};
use crate::{Peers, RegistryError, Wish};

pub(super) async fn register(
    registry: &MongoDb,
    node: &NodeDocument,
    resumes: Option<BootEpoch>,
) -> Result<Life, RegistryError> {
    let attempted = format!("register node {}", node.id);
    let nodes = registry.collection(schema::NODES, &attempted).await?;
    let document = encode(node).map_err(|e| failure::failed(&attempted, registry.servers(), e))?;
    let mut filter = doc! { "_id": &node.id };
    let epoch: Bson = match resumes {
        // A document of a later life does not match.
        Some(this) => {
            filter.insert("boot_epoch", doc! { "$lte": long(this.0) });
            long(this.0).into()
        }
        None => {
            doc! { "$max": [{ "$toLong": "$$NOW" }, { "$add": [{ "$ifNull": ["$boot_epoch", 0_i64] }, 1_i64] }] }.into()
        }
    };
    let same = doc! { "$eq": [{ "$ifNull": ["$boot_epoch", -1_i64] }, resumes.map_or(-2, |this| long(this.0))] };
    let kept =
        |field: &str, new: Bson| doc! { "$cond": [&same, { "$ifNull": [format!("${field}"), new.clone()] }, new] };
    let set = doc! { "$set": {
        "boot_epoch": epoch,
        "document": { "$literal": document },
        "heartbeat": kept("heartbeat", doc! { "$literal": {} }.into()),
        "registered_at": kept("registered_at", "$$NOW".into()),
        "heard_at": "$$NOW",
        "expire_at": { "$add": ["$$NOW", node_life_ms(registry)] },
        "gone": false,
        "drain": kept("drain", false.into()),
    } };
    let empty = doc! { "boot_epoch": 0_i64, "gone": true, "expire_at": hence(registry.0.timing.keep_nodes) };
    match update_or_insert(registry, &attempted, &nodes, filter, vec![set], empty).await? {
        Some(written) => {
            let epoch = epoch_of(&written).unwrap_or(BootEpoch(0));
            Ok(Life { node: node.id.clone(), epoch })
        }
        None => Err(not_this_life(registry, &attempted, &nodes, &node.id, resumes.unwrap_or(BootEpoch(0))).await?),
    }
}

pub(super) async fn heartbeat(registry: &MongoDb, life: &Life, heartbeat: &Heartbeat) -> Result<Wish, RegistryError> {
    let attempted = format!("renew the lease of node {}", life.node);
    let nodes = registry.collection(schema::NODES, &attempted).await?;
    let mut heartbeat = heartbeat.clone();
    heartbeat.watched.truncate(MAX_WATCHED);
    let heartbeat = encode(&heartbeat).map_err(|e| failure::failed(&attempted, registry.servers(), e))?;
    let filter = doc! { "_id": &life.node, "boot_epoch": long(life.epoch.0), "gone": false };
    let set = doc! { "$set": {
        "heartbeat": { "$literal": heartbeat },
        "heard_at": "$$NOW",
        "expire_at": { "$add": ["$$NOW", node_life_ms(registry)] },
    } };
    let renewing = nodes.find_one_and_update(filter, vec![set]).projection(doc! { "drain": 1 });
    if let Some(renewed) = registry.attempt(&attempted, renewing.into_future()).await? {
        return Ok(if is_asked_to_drain(&renewed) { Wish::Drain } else { Wish::Serve });
    }
    Err(not_this_life(registry, &attempted, &nodes, &life.node, life.epoch).await?)
}

/// Why a life of a node was not found.
async fn not_this_life(
    registry: &MongoDb,
    attempted: &str,
    nodes: &Collection<Document>,
    id: &str,
    this: BootEpoch,
) -> Result<RegistryError, RegistryError> {
    let found = registry.attempt(attempted, nodes.find_one(doc! { "_id": id }).into_future()).await?;
    Ok(match found.as_ref().and_then(epoch_of) {
        Some(registered) if registered > this => RegistryError::Superseded { id: id.to_owned(), this, registered },
        _ => RegistryError::NotRegistered { id: id.to_owned() },
    })
}

/// Of which nodes, and how much of each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    All,
    One(&'a str),
    /// Without what is watched there.
    Peers(Peers<'a>),
}

/// Nodes, sorted by id.
pub(super) async fn list(registry: &MongoDb, wanted: Wanted<'_>) -> Result<Vec<NodeRecord>, RegistryError> {
    let attempted = match wanted {
        Wanted::All => "list the nodes".to_owned(),
        Wanted::One(id) => format!("look for node {id}"),
        Wanted::Peers(Peers::These(ids)) => format!("look for {} nodes", ids.len()),
        Wanted::Peers(Peers::EdgesOf(group)) => format!("list the edges of group {group:?}"),
    };
    let nodes = registry.collection(schema::NODES, &attempted).await?;
    let mut filter = doc! { "gone": false };
    match wanted {
        Wanted::All => {}
        Wanted::One(id) => filter.extend(doc! { "_id": id }),
        Wanted::Peers(Peers::These(ids)) => filter.extend(doc! { "_id": { "$in": ids } }),
        Wanted::Peers(Peers::EdgesOf(group)) => {
            filter.extend(doc! { "document.role": "edge", "document.group": group });
        }
    }
    let mut stages =
        vec![doc! { "$match": filter }, doc! { "$sort": { "_id": 1 } }, doc! { "$addFields": { "now": "$$NOW" } }];
    if matches!(wanted, Wanted::Peers(_)) {
        stages.push(doc! { "$project": { "heartbeat.watched": 0 } });
    }
    let found = registry.attempt(&attempted, collect(nodes.aggregate(stages))).await?;
    let lease_ms = millis(registry.0.timing.lease);
    let mut records = Vec::with_capacity(found.len());
    for found in found {
        let (now_ms, heard_ms) = (time_ms(&found, "now"), time_ms(&found, "heard_at"));
        // The database removes what has expired within a minute; nobody shall see the difference.
        if time_ms(&found, "expire_at") <= now_ms {
            continue;
        }
        let record = || -> mongodb::error::Result<NodeRecord> {
            let silent_ms = (now_ms - heard_ms).max(0);
            Ok(NodeRecord {
                node: decode_field(&found, "document")?,
                boot_epoch: epoch_of(&found).unwrap_or(BootEpoch(0)),
                heartbeat: decode(found.get_document("heartbeat").cloned().unwrap_or_default())?,
                age_ms: (now_ms - time_ms(&found, "registered_at")).max(0) as u64,
                silent_ms: silent_ms as u64,
                alive: silent_ms < lease_ms,
                drain_asked: is_asked_to_drain(&found),
            })
        };
        records.push(record().map_err(|e| failure::failed(&attempted, registry.servers(), e))?);
    }
    Ok(records)
}

/// Leaves the wish where the node's next heartbeat finds it.
pub(super) async fn ask_to_drain(registry: &MongoDb, life: &Life) -> Result<bool, RegistryError> {
    let attempted = format!("ask node {} to drain", life.node);
    let nodes = registry.collection(schema::NODES, &attempted).await?;
    let filter = doc! { "_id": &life.node, "boot_epoch": long(life.epoch.0), "gone": false };
    let asked = doc! { "$set": { "drain": true } };
    Ok(registry.attempt(&attempted, nodes.update_one(filter, asked).into_future()).await?.matched_count > 0)
}

/// Marks a node, or that life of it, as gone.
pub(super) async fn remove(registry: &MongoDb, id: &str, life: Option<BootEpoch>) -> Result<bool, RegistryError> {
    let attempted = format!("remove node {id}");
    let nodes = registry.collection(schema::NODES, &attempted).await?;
    let mut filter = doc! { "_id": id, "gone": false };
    if let Some(epoch) = life {
        filter.insert("boot_epoch", long(epoch.0));
    }
    let gone = doc! { "$set": { "gone": true } };
    Ok(registry.attempt(&attempted, nodes.update_one(filter, gone).into_future()).await?.matched_count > 0)
}

fn is_asked_to_drain(document: &Document) -> bool {
    document.get_bool("drain").unwrap_or_default()
}

fn epoch_of(document: &Document) -> Option<BootEpoch> {
    document.get_i64("boot_epoch").ok().map(|epoch| BootEpoch(epoch as u64))
}

/// From the last heartbeat to oblivion.
fn node_life_ms(registry: &MongoDb) -> i64 {
    millis(registry.0.timing.lease + registry.0.timing.keep_nodes)
}
