//! Nodes in MongoDB: `{ _id, boot_epoch, document, heartbeat, registered_at, heard_at, expire_at,
//! gone, drain }`.
//!
//! A removed node is kept with `gone` set until it expires, so that its next incarnation gets a
//! greater epoch.

use headwater_api::documents::{BootEpoch, Heartbeat, MAX_WATCHED, NodeDocument, NodeIncarnation, NodeRecord};
use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};

use super::documents::update_or_insert;
use super::values::{as_millis, collect, decode, decode_field, encode, from_now, time_ms, to_i64};
use super::{MongoDb, schema};
use crate::{DesiredState, Nodes, Peers, RegistryError};

impl Nodes for MongoDb {
    async fn register(
        &self,
        node: &NodeDocument,
        resumes: Option<BootEpoch>,
    ) -> Result<NodeIncarnation, RegistryError> {
        let attempted = format!("register node {}", node.id);
        let nodes = self.collection(schema::NODES, &attempted).await?;
        let document = encode(node).map_err(|e| self.call_failed(&attempted, e))?;
        let mut filter = doc! { "_id": &node.id };
        if let Some(this) = resumes {
            // The document of a later incarnation does not match.
            filter.insert("boot_epoch", doc! { "$lte": to_i64(this.0) });
        }
        let update = vec![registration_update(self, document, resumes)];
        let empty = doc! { "boot_epoch": 0_i64, "gone": true, "expire_at": from_now(self.timing().node_retention) };
        match update_or_insert(self, &attempted, &nodes, filter, update, empty).await? {
            Some(written) => {
                let epoch = epoch_of(&written).unwrap_or(BootEpoch(0));
                Ok(NodeIncarnation { node: node.id.clone(), epoch })
            }
            None => {
                let this = resumes.unwrap_or(BootEpoch(0));
                Err(not_found_error(self, &attempted, &nodes, &node.id, this).await?)
            }
        }
    }

    async fn heartbeat(
        &self,
        incarnation: &NodeIncarnation,
        heartbeat: &Heartbeat,
    ) -> Result<DesiredState, RegistryError> {
        let attempted = format!("renew the lease of node {}", incarnation.node);
        let nodes = self.collection(schema::NODES, &attempted).await?;
        let mut heartbeat = heartbeat.clone();
        heartbeat.watched.truncate(MAX_WATCHED);
        let heartbeat = encode(&heartbeat).map_err(|e| self.call_failed(&attempted, e))?;
        let set = doc! { "$set": {
            "heartbeat": { "$literal": heartbeat },
            "heard_at": "$$NOW",
            "expire_at": { "$add": ["$$NOW", document_ttl_ms(self)] },
        } };
        let update = nodes.find_one_and_update(incarnation_filter(incarnation), vec![set]);
        let update = update.projection(doc! { "drain": 1 });
        if let Some(renewed) = self.attempt(&attempted, update.into_future()).await? {
            return Ok(if is_drain_requested(&renewed) { DesiredState::Drain } else { DesiredState::Serve });
        }
        Err(not_found_error(self, &attempted, &nodes, &incarnation.node, incarnation.epoch).await?)
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, RegistryError> {
        list(self, NodeQuery::All).await
    }

    async fn peers(&self, which: Peers<'_>) -> Result<Vec<NodeRecord>, RegistryError> {
        list(self, NodeQuery::Peers(which)).await
    }

    async fn node(&self, id: &str) -> Result<Option<NodeRecord>, RegistryError> {
        Ok(list(self, NodeQuery::One(id)).await?.pop())
    }

    async fn remove_node(&self, id: &str) -> Result<bool, RegistryError> {
        mark_removed(self, id, doc! { "_id": id, "gone": false }).await
    }

    async fn request_drain(&self, incarnation: &NodeIncarnation) -> Result<bool, RegistryError> {
        let attempted = format!("ask node {} to drain", incarnation.node);
        let nodes = self.collection(schema::NODES, &attempted).await?;
        // The node's next heartbeat reads the field.
        let update = nodes.update_one(incarnation_filter(incarnation), doc! { "$set": { "drain": true } });
        Ok(self.attempt(&attempted, update.into_future()).await?.matched_count > 0)
    }

    async fn deregister(&self, incarnation: &NodeIncarnation) -> Result<bool, RegistryError> {
        mark_removed(self, &incarnation.node, incarnation_filter(incarnation)).await
    }
}

/// The update of a registration. Keeps heartbeat, registration time and drain request if the epoch
/// does not change.
fn registration_update(registry: &MongoDb, document: Document, resumes: Option<BootEpoch>) -> Document {
    let epoch: Bson = match resumes {
        Some(this) => to_i64(this.0).into(),
        None => {
            doc! { "$max": [{ "$toLong": "$$NOW" }, { "$add": [{ "$ifNull": ["$boot_epoch", 0_i64] }, 1_i64] }] }.into()
        }
    };
    let same = doc! { "$eq": [{ "$ifNull": ["$boot_epoch", -1_i64] }, resumes.map_or(-2, |this| to_i64(this.0))] };
    let keep_if_same =
        |field: &str, new: Bson| doc! { "$cond": [&same, { "$ifNull": [format!("${field}"), new.clone()] }, new] };
    doc! { "$set": {
        "boot_epoch": epoch,
        "document": { "$literal": document },
        "heartbeat": keep_if_same("heartbeat", doc! { "$literal": {} }.into()),
        "registered_at": keep_if_same("registered_at", "$$NOW".into()),
        "heard_at": "$$NOW",
        "expire_at": { "$add": ["$$NOW", document_ttl_ms(registry)] },
        "gone": false,
        "drain": keep_if_same("drain", false.into()),
    } }
}

/// The error for an incarnation of a node that no document matched.
async fn not_found_error(
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

/// The nodes to list.
#[derive(Debug, Clone, Copy)]
enum NodeQuery<'a> {
    All,
    One(&'a str),
    /// Without their viewer counts by stream.
    Peers(Peers<'a>),
}

impl NodeQuery<'_> {
    fn attempted(self) -> String {
        match self {
            Self::All => "list the nodes".to_owned(),
            Self::One(id) => format!("look for node {id}"),
            Self::Peers(Peers::ById(ids)) => format!("look for {} nodes", ids.len()),
            Self::Peers(Peers::EdgesOf(group)) => format!("list the edges of group {group:?}"),
            Self::Peers(Peers::Watching(name)) => format!("list the nodes with viewers of stream {name}"),
        }
    }

    fn stages(self) -> Vec<Document> {
        let mut filter = doc! { "gone": false };
        match self {
            Self::All => {}
            Self::One(id) => filter.extend(doc! { "_id": id }),
            Self::Peers(Peers::ById(ids)) => filter.extend(doc! { "_id": { "$in": ids } }),
            Self::Peers(Peers::EdgesOf(group)) => {
                filter.extend(doc! { "document.role": "edge", "document.group": group });
            }
            Self::Peers(Peers::Watching(name)) => filter.extend(doc! { "heartbeat.watched.name": name.as_str() }),
        }
        let mut stages =
            vec![doc! { "$match": filter }, doc! { "$sort": { "_id": 1 } }, doc! { "$addFields": { "now": "$$NOW" } }];
        if matches!(self, Self::Peers(_)) {
            stages.push(doc! { "$project": { "heartbeat.watched": 0 } });
        }
        stages
    }
}

/// The selected nodes, sorted by id.
async fn list(registry: &MongoDb, query: NodeQuery<'_>) -> Result<Vec<NodeRecord>, RegistryError> {
    let attempted = query.attempted();
    let nodes = registry.collection(schema::NODES, &attempted).await?;
    let found = registry.attempt(&attempted, collect(nodes.aggregate(query.stages()))).await?;
    let lease_ms = as_millis(registry.timing().lease);
    // The database removes expired documents within a minute; until then they are skipped.
    let live = found.iter().filter(|found| time_ms(found, "expire_at") > time_ms(found, "now"));
    let records = live.map(|found| decode_record(found, lease_ms)).collect::<mongodb::error::Result<_>>();
    records.map_err(|e| registry.call_failed(&attempted, e))
}

fn decode_record(found: &Document, lease_ms: i64) -> mongodb::error::Result<NodeRecord> {
    let now_ms = time_ms(found, "now");
    let silent_ms = (now_ms - time_ms(found, "heard_at")).max(0);
    Ok(NodeRecord {
        node: decode_field(found, "document")?,
        boot_epoch: epoch_of(found).unwrap_or(BootEpoch(0)),
        heartbeat: decode(found.get_document("heartbeat").cloned().unwrap_or_default())?,
        age_ms: (now_ms - time_ms(found, "registered_at")).max(0) as u64,
        silent_ms: silent_ms as u64,
        alive: silent_ms < lease_ms,
        drain_requested: is_drain_requested(found),
    })
}

/// Marks the node that the filter finds as removed. Returns false if there is none.
async fn mark_removed(registry: &MongoDb, id: &str, filter: Document) -> Result<bool, RegistryError> {
    let attempted = format!("remove node {id}");
    let nodes = registry.collection(schema::NODES, &attempted).await?;
    let update = nodes.update_one(filter, doc! { "$set": { "gone": true } });
    Ok(registry.attempt(&attempted, update.into_future()).await?.matched_count > 0)
}

fn incarnation_filter(incarnation: &NodeIncarnation) -> Document {
    doc! { "_id": &incarnation.node, "boot_epoch": to_i64(incarnation.epoch.0), "gone": false }
}

fn is_drain_requested(document: &Document) -> bool {
    document.get_bool("drain").unwrap_or_default()
}

fn epoch_of(document: &Document) -> Option<BootEpoch> {
    document.get_i64("boot_epoch").ok().map(|epoch| BootEpoch(epoch as u64))
}

/// From the last heartbeat to the removal of the document.
fn document_ttl_ms(registry: &MongoDb) -> i64 {
    as_millis(registry.timing().lease + registry.timing().node_retention)
}
