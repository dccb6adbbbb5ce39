//! Writes are durable: every write waits for the majority of the replica set. Tested against a
//! scripted server that records commands; the test database has no replica sets and accepts any
//! write concern.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use headwater_api::documents::{AppDocument, Grant, Heartbeat};
use headwater_api::secret::Secret;
use mongodb::bson::{Document, doc};
use tokio::net::TcpListener;
use tokio::sync::watch::Sender;
use tokio::task::JoinSet;

use super::{MongoDb, wire};
use crate::{Apps as _, Nodes as _, Registry as _, Streams as _, Tokens as _, contract};

/// Names of the commands that write.
const WRITES: [&str; 4] = ["insert", "update", "delete", "findAndModify"];

#[tokio::test]
async fn every_write_waits_for_the_majority() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = Secret::new(format!("mongodb://{}/?directConnection=true", listener.local_addr().unwrap()));
    let commands = Arc::new(Mutex::new(Vec::new()));
    let (recorded, existing) = (commands.clone(), Arc::new(Mutex::new(HashSet::new())));
    let mut server = JoinSet::new();
    server.spawn(wire::serve(listener, Sender::default(), move |command| {
        recorded.lock().unwrap().push(command.clone());
        answer(command, &existing)
    }));
    let registry = MongoDb::open(&uri, contract::TIMING).await.unwrap();
    let check = |call: &str, min_writes: usize| {
        let commands = std::mem::take(&mut *commands.lock().unwrap());
        let writes: Vec<_> = commands.iter().filter(|c| WRITES.contains(&name_of(c))).collect();
        assert!(writes.len() >= min_writes, "{call}: {commands:?}");
        for write in writes {
            let concern = write.get_document("writeConcern").ok();
            let majority = concern.is_some_and(|concern| concern.get_str("w").is_ok_and(|w| w == "majority"));
            assert!(majority, "{call}: {} with {concern:?}", name_of(write));
        }
    };
    let incarnation = contract::register(&registry, "a").await;
    check("register", 2);
    registry.heartbeat(&incarnation, &Heartbeat::default()).await.unwrap();
    check("heartbeat", 1);
    let claim = registry.claim(&incarnation, &contract::name("live/a"), &contract::offer(1), None).await.unwrap();
    check("claim", 2);
    assert_eq!(registry.renew(&incarnation, std::slice::from_ref(&claim)).await.unwrap(), []);
    check("renew", 1);
    assert!(registry.release(&claim).await.unwrap());
    check("release", 1);
    registry.release_all(&incarnation).await.unwrap();
    check("release_all", 1);
    assert!(registry.deregister(&incarnation).await.unwrap());
    check("deregister", 1);
    registry.put_app(&AppDocument::open("live")).await.unwrap();
    check("put_app", 1);
    registry.remove_app("live").await.unwrap();
    check("remove_app", 1);
    registry.create_token(&contract::token("digest", registry.probe().await.unwrap())).await.unwrap();
    check("create_token", 1);
    registry.consume_token("digest", &contract::name("live/a"), Grant::Play).await.unwrap();
    check("consume_token", 1);
    registry.revoke_token("digest").await.unwrap();
    check("revoke_token", 1);
    registry.revoke_tokens("live", Some("a")).await.unwrap();
    check("revoke_tokens", 1);
}

fn name_of(command: &Document) -> &str {
    command.keys().next().map_or("", String::as_str)
}

/// The answer of a server on which every document exists from its second update on, as node `a`
/// would have written it.
fn answer(command: &Document, existing: &Mutex<HashSet<String>>) -> Document {
    match name_of(command) {
        "hello" | "isMaster" | "ismaster" => {
            doc! { "ok": 1, "helloOk": true, "ismaster": true, "isWritablePrimary": true, "minWireVersion": 0, "maxWireVersion": 21,
            "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000 }
        }
        "find" => {
            doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "headwater.meta", "firstBatch": [{ "_id": "schema" }] } }
        }
        "findAndModify" if existing.lock().unwrap().insert(collection_and_id(command)) => {
            doc! { "ok": 1, "value": null }
        }
        "findAndModify" => {
            doc! { "ok": 1, "value": { "_id": "a", "owner": "a", "boot_epoch": 1_i64, "epoch": 1_i64 } }
        }
        "aggregate" => doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "headwater.tokens", "firstBatch": [] } },
        "update" => doc! { "ok": 1, "n": 1, "nModified": 1 },
        _ => doc! { "ok": 1, "n": 1 },
    }
}

/// Collection and id of the document that a command changes.
fn collection_and_id(command: &Document) -> String {
    let id = command.get_document("query").ok().and_then(|query| query.get("_id"));
    format!("{:?} {id:?}", command.get("findAndModify"))
}
