//! The commands that form a replica set, against one scripted mongod that records them: each is the
//! command of MongoDB's manual, and each answer is parsed. What a real mongod does with them is not
//! tested here.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use headwater_api::secret::Secret;
use mongodb::bson::{Document, doc};
use tokio::net::TcpListener;
use tokio::sync::watch::Sender;
use tokio::task::JoinSet;

use super::scripted::failure;
use super::wire;
use crate::{DatabaseRights, DatabaseUser, MemberState, Mongod, RegistryError, ReplicaSetConfig};

/// A scripted mongod. Dropping it stops it.
struct ScriptedMongod {
    address: SocketAddr,
    commands: Arc<Mutex<Vec<Document>>>,
    _server: JoinSet<()>,
}

impl ScriptedMongod {
    /// Answers `hello` like a new member, and other commands with `answer`.
    async fn start(answer: impl Fn(&str, &Document) -> Document + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, commands) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let recorded = commands.clone();
        let mut server = JoinSet::new();
        server.spawn(wire::serve(listener, Sender::default(), move |command| {
            let name = command.keys().next().unwrap().as_str();
            if matches!(name, "hello" | "isMaster" | "ismaster") {
                return doc! { "ok": 1, "helloOk": true, "isreplicaset": true, "isWritablePrimary": false, "minWireVersion": 0,
                "maxWireVersion": 21, "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000,
                "maxWriteBatchSize": 100_000 };
            }
            let mut plain = command.clone();
            for driver_field in ["lsid", "$db", "$readPreference", "$clusterTime"] {
                plain.remove(driver_field);
            }
            recorded.lock().unwrap().push(plain);
            answer(name, command)
        }));
        Self { address, commands, _server: server }
    }

    fn mongod(&self) -> Mongod {
        Mongod::at(self.address, None).unwrap()
    }

    /// The commands since the last call.
    fn take_commands(&self) -> Vec<Document> {
        std::mem::take(&mut self.commands.lock().unwrap())
    }
}

fn user() -> DatabaseUser {
    DatabaseUser { name: "u".to_owned(), password: Secret::new("hunter2") }
}

fn ok(_: &str, _: &Document) -> Document {
    doc! { "ok": 1 }
}

#[tokio::test]
async fn mongod_without_a_replica_set_answers_hello() {
    let script = ScriptedMongod::start(ok).await;
    assert_eq!(script.mongod().hello().await.unwrap().state, MemberState::Uninitialized);
}

#[tokio::test]
async fn initiate_sends_one_member_and_reports_an_existing_set() {
    let script = ScriptedMongod::start(ok).await;
    assert!(script.mongod().initiate(&ReplicaSetConfig::initial("s", "10.0.0.1:27017")).await.unwrap());
    let members = doc! { "_id": 0, "host": "10.0.0.1:27017" };
    // Below the 10 s within which nodes must be able to write again.
    let settings = doc! { "electionTimeoutMillis": 4_000 };
    let expected = doc! { "replSetInitiate": { "_id": "s", "members": [members], "settings": settings } };
    assert_eq!(script.take_commands(), [expected]);
    let existing = ScriptedMongod::start(|_, _| failure(23, "already initialized")).await;
    assert!(!existing.mongod().initiate(&ReplicaSetConfig::initial("s", "a:1")).await.unwrap());
    let rejecting = ScriptedMongod::start(|_, _| failure(93, "invalid")).await;
    assert!(rejecting.mongod().initiate(&ReplicaSetConfig::initial("s", "a:1")).await.is_err());
}

#[tokio::test]
async fn configuration_is_read_changed_by_one_member_and_written_without_force() {
    let script = ScriptedMongod::start(|name, _| match name {
        "replSetGetConfig" => {
            doc! { "ok": 1, "config": { "_id": "s", "version": 3, "members": [{ "_id": 0, "host": "a:1" }] } }
        }
        _ => doc! { "ok": 1 },
    })
    .await;
    let mongod = script.mongod();
    let config = mongod.config().await.unwrap();
    mongod.reconfigure(&config.with_member("b:1")).await.unwrap();
    let next = doc! { "_id": "s", "version": 4, "members": [{ "_id": 0, "host": "a:1" }, { "_id": 1, "host": "b:1" }] };
    assert_eq!(script.take_commands(), [doc! { "replSetGetConfig": 1 }, doc! { "replSetReconfig": next }]);
    let empty = ScriptedMongod::start(ok).await;
    assert!(matches!(empty.mongod().config().await, Err(RegistryError::Refused { .. })));
}

#[tokio::test]
async fn refused_change_is_an_error_and_not_retried() {
    let script = ScriptedMongod::start(|_, _| failure(109, "configuration in progress")).await;
    assert!(script.mongod().reconfigure(&ReplicaSetConfig::initial("s", "a:1")).await.is_err());
    assert_eq!(script.take_commands().len(), 1);
}

#[tokio::test]
async fn members_are_listed_with_their_state() {
    let script = ScriptedMongod::start(|_, _| {
        doc! { "ok": 1, "members": [{ "name": "a:1", "health": 1.0, "state": 1 }, { "name": "b:1", "health": 0.0, "state": 8 }] }
    })
    .await;
    let members = script.mongod().members().await.unwrap();
    assert_eq!((members.len(), members[0].serving, members[1].reachable), (2, true, false));
    assert_eq!(script.take_commands(), [doc! { "replSetGetStatus": 1 }]);
}

#[tokio::test]
async fn step_down_without_a_successor_is_an_error() {
    let script = ScriptedMongod::start(ok).await;
    script.mongod().step_down().await.unwrap();
    assert_eq!(script.take_commands(), [doc! { "replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 10 }]);
    let without_successor = ScriptedMongod::start(|_, _| failure(262, "no electable secondaries caught up")).await;
    assert!(without_successor.mongod().step_down().await.is_err());
}

#[tokio::test]
async fn first_user_administers_and_the_next_one_reads_and_writes() {
    let script = ScriptedMongod::start(ok).await;
    script.mongod().create_first_user(&user(), DatabaseRights::Administer).await.unwrap();
    script.mongod().put_user(&user(), DatabaseRights::ReadWrite).await.unwrap();
    let concern = doc! { "w": "majority", "wtimeout": 10_000 };
    let administer =
        [doc! { "role": "clusterManager", "db": "admin" }, doc! { "role": "userAdminAnyDatabase", "db": "admin" }];
    let read_write = [doc! { "role": "readWrite", "db": "headwater" }];
    let expected = [
        doc! { "createUser": "u", "pwd": "hunter2", "roles": administer.to_vec(), "writeConcern": concern.clone() },
        doc! { "updateUser": "u", "pwd": "hunter2", "roles": read_write.to_vec(), "writeConcern": concern },
    ];
    assert_eq!(script.take_commands(), expected);
}

#[tokio::test]
async fn missing_user_is_created_and_refusals_do_not_show_the_password() {
    let script = ScriptedMongod::start(|name, _| {
        if name == "updateUser" {
            failure(11, "not found")
        } else {
            doc! { "ok": 1 }
        }
    })
    .await;
    script.mongod().put_user(&user(), DatabaseRights::ReadWrite).await.unwrap();
    let names: Vec<_> = script.take_commands().iter().map(|command| command.keys().next().unwrap().clone()).collect();
    assert_eq!(names, ["updateUser", "createUser"]);
    let refusing = ScriptedMongod::start(|_, _| failure(13, "not authorized")).await;
    let error = refusing.mongod().create_first_user(&user(), DatabaseRights::Administer).await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error:?}");
    assert!(!format!("{error:?} {:?}", refusing.mongod()).contains("hunter2"));
}

#[tokio::test]
async fn wrong_password_is_not_an_error_but_an_unreachable_server_is() {
    let script = ScriptedMongod::start(|name, _| match name {
        "saslStart" => failure(18, "Authentication failed."),
        _ => doc! { "ok": 1 },
    })
    .await;
    assert!(!Mongod::accepts_login(script.address, &user()).await.unwrap());
    let address = script.address;
    drop(script);
    assert!(matches!(Mongod::accepts_login(address, &user()).await, Err(RegistryError::Unreachable { .. })));
}
