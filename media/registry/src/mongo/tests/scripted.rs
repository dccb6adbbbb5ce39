//! A scripted replica set of two members: enough of the wire protocol for a probe, and elections on
//! demand.
//!
//! It stores nothing. It simulates the states of a replica set, which the test database does not
//! have, and no other behaviour.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::wire::{self, Connections};

/// Dropping it stops both members.
pub(super) struct ReplicaSet {
    pub(super) uri: String,
    /// Connections to both members.
    pub(super) connections: watch::Receiver<Connections>,
    state: Arc<State>,
    _members: JoinSet<()>,
}

struct State {
    hosts: Vec<String>,
    /// Index of the primary; -1: there is no majority.
    primary: AtomicI32,
    /// Number of elections.
    term: AtomicI32,
    /// Error code of every write; 0: writes succeed.
    failure_code: AtomicI32,
}

impl ReplicaSet {
    pub(super) async fn start() -> Self {
        let listeners =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let hosts: Vec<String> = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        let uri = format!("mongodb://{}/?replicaSet=rs", hosts.join(","));
        let (primary, term, failure_code) = (AtomicI32::new(0), AtomicI32::new(1), AtomicI32::new(0));
        let state = Arc::new(State { hosts, primary, term, failure_code });
        let connections_tx = watch::Sender::default();
        let connections = connections_tx.subscribe();
        let mut members = JoinSet::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            let state = state.clone();
            let answer = move |command: &Document| answer(command, index as i32, &state);
            members.spawn(wire::serve(listener, connections_tx.clone(), answer));
        }
        Self { uri, connections, state, _members: members }
    }

    /// Makes another member the primary, or none (-1).
    pub(super) fn elect(&self, primary: i32) {
        self.state.term.fetch_add(1, Ordering::SeqCst);
        self.state.primary.store(primary, Ordering::SeqCst);
    }

    /// Makes every write fail with this code; 0: writes succeed.
    pub(super) fn fail_with(&self, code: i32) {
        self.state.failure_code.store(code, Ordering::SeqCst);
    }
}

fn answer(command: &Document, member: i32, state: &State) -> Document {
    let name = command.keys().next().map_or("", String::as_str);
    let is_primary = state.primary.load(Ordering::SeqCst) == member;
    if matches!(name, "hello" | "isMaster" | "ismaster") {
        return hello(member, is_primary, state);
    }
    let failure_code = state.failure_code.load(Ordering::SeqCst);
    match name {
        "endSessions" => doc! { "ok": 1 },
        // A server labels errors after which the driver may repeat the call, once.
        _ if !is_primary => {
            let mut answer = failure(10_107, "not primary");
            answer.insert("errorLabels", vec!["RetryableWriteError"]);
            answer
        }
        "createIndexes" => doc! { "ok": 1, "numIndexesBefore": 1, "numIndexesAfter": 2 },
        "find" => {
            doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "headwater.meta", "firstBatch": [{ "_id": "schema" }] } }
        }
        "findAndModify" if failure_code != 0 => failure(failure_code, "scripted"),
        "findAndModify" => {
            doc! { "ok": 1, "value": { "_id": "probe", "at": DateTime::from_millis(1 + i64::from(member)) } }
        }
        other => failure(59, &format!("unknown command {other}")),
    }
}

fn hello(member: i32, is_primary: bool, state: &State) -> Document {
    let hosts: Vec<Bson> = state.hosts.iter().map(|h| Bson::from(h.as_str())).collect();
    let mut hello = doc! {
        "ok": 1, "helloOk": true, "setName": "rs", "setVersion": 1, "hosts": hosts,
        "me": &state.hosts[member as usize], "ismaster": is_primary, "isWritablePrimary": is_primary, "secondary": !is_primary,
        "minWireVersion": 0, "maxWireVersion": 21, "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000,
        "maxWriteBatchSize": 100_000, "logicalSessionTimeoutMinutes": 30,
    };
    if is_primary {
        let mut election = [0; 12];
        election[8..].copy_from_slice(&state.term.load(Ordering::SeqCst).to_be_bytes());
        hello.insert("electionId", ObjectId::from_bytes(election));
    }
    hello
}

pub(super) fn failure(code: i32, message: &str) -> Document {
    doc! { "ok": 0, "code": code, "codeName": "Scripted", "errmsg": message }
}
