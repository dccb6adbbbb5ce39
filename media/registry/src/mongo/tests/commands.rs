//! The commands that make a replica set, against one scripted mongod that writes down what it is asked: that each is the command
//! of MongoDB's manual, and that each answer is understood. What a real mongod does with them is not tested here.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use headwater_api::secret::Secret;
use mongodb::bson::{Document, doc};
use tokio::net::TcpListener;
use tokio::sync::watch::Sender;
use tokio::task::JoinSet;

use super::scripted::failure;
use super::wire;
use crate::{MemberState, Mongod, RegistryError, SetConfig, User, UserRights};

/// One mongod. Dropping it ends it.
struct Script {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Document>>>,
    _server: JoinSet<()>,
}

impl Script {
    /// One that answers a command so, and hello like a new member.
    async fn start(answer: impl Fn(&str, &Document) -> Document + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let seen = asked.clone();
        let mut server = JoinSet::new();
        server.spawn(wire::serve(listener, Sender::default(), move |command| {
            let name = command.keys().next().unwrap().as_str();
            if matches!(name, "hello" | "isMaster" | "ismaster") {
                return doc! { "ok": 1, "helloOk": true, "isreplicaset": true, "isWritablePrimary": false, "minWireVersion": 0,
                "maxWireVersion": 21, "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000,
                "maxWriteBatchSize": 100_000 };
            }
            let mut plain = command.clone();
            for of_the_driver in ["lsid", "$db", "$readPreference", "$clusterTime"] {
                plain.remove(of_the_driver);
            }
            seen.lock().unwrap().push(plain);
            answer(name, command)
        }));
        Self { address, asked, _server: server }
    }

    fn mongod(&self) -> Mongod {
        Mongod::at(self.address, None).unwrap()
    }

    fn asked(&self) -> Vec<Document> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn user() -> User {
    User { name: "u".to_owned(), password: Secret::new("hunter2") }
}

fn ok(_: &str, _: &Document) -> Document {
    doc! { "ok": 1 }
}

#[tokio::test]
async fn a_mongod_without_a_set_is_asked_although_no_driver_would_take_it_for_a_server() {
    let script = Script::start(ok).await;
    assert_eq!(script.mongod().hello().await.unwrap().state, MemberState::Setless);
}

#[tokio::test]
async fn a_set_is_begun_with_its_name_and_one_member_and_one_that_is_there_is_told() {
    let script = Script::start(ok).await;
    assert!(script.mongod().initiate(&SetConfig::first("s", "10.0.0.1:27017")).await.unwrap());
    let members = doc! { "_id": 0, "host": "10.0.0.1:27017" };
    // Below the 10 s within which nodes are to write again.
    let settings = doc! { "electionTimeoutMillis": 4_000 };
    let expected = doc! { "replSetInitiate": { "_id": "s", "members": [members], "settings": settings } };
    assert_eq!(script.asked(), [expected]);
    let there = Script::start(|_, _| failure(23, "already initialized")).await;
    assert!(!there.mongod().initiate(&SetConfig::first("s", "a:1")).await.unwrap());
    let unfit = Script::start(|_, _| failure(93, "invalid")).await;
    assert!(unfit.mongod().initiate(&SetConfig::first("s", "a:1")).await.is_err());
}

#[tokio::test]
async fn a_configuration_is_read_changed_by_one_member_and_given_back_without_force() {
    let script = Script::start(|name, _| match name {
        "replSetGetConfig" => {
            doc! { "ok": 1, "config": { "_id": "s", "version": 3, "members": [{ "_id": 0, "host": "a:1" }] } }
        }
        _ => doc! { "ok": 1 },
    })
    .await;
    let mongod = script.mongod();
    let config = mongod.config().await.unwrap();
    mongod.reconfigure(&config.with("b:1")).await.unwrap();
    let next = doc! { "_id": "s", "version": 4, "members": [{ "_id": 0, "host": "a:1" }, { "_id": 1, "host": "b:1" }] };
    assert_eq!(script.asked(), [doc! { "replSetGetConfig": 1 }, doc! { "replSetReconfig": next }]);
    let empty = Script::start(ok).await;
    assert!(matches!(empty.mongod().config().await, Err(RegistryError::Refused { .. })));
}

#[tokio::test]
async fn a_change_that_the_set_is_not_ready_for_is_an_error_and_tried_by_nobody_here() {
    let script = Script::start(|_, _| failure(109, "configuration in progress")).await;
    assert!(script.mongod().reconfigure(&SetConfig::first("s", "a:1")).await.is_err());
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test]
async fn members_are_told_with_how_they_do() {
    let script = Script::start(|_, _| {
        doc! { "ok": 1, "members": [{ "name": "a:1", "health": 1.0, "state": 1 }, { "name": "b:1", "health": 0.0, "state": 8 }] }
    })
    .await;
    let members = script.mongod().members().await.unwrap();
    assert_eq!((members.len(), members[0].serves, members[1].answers), (2, true, false));
    assert_eq!(script.asked(), [doc! { "replSetGetStatus": 1 }]);
}

#[tokio::test]
async fn a_primary_that_nobody_can_follow_says_so_when_it_is_to_step_down() {
    let script = Script::start(ok).await;
    script.mongod().step_down().await.unwrap();
    assert_eq!(script.asked(), [doc! { "replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 10 }]);
    let alone = Script::start(|_, _| failure(262, "no electable secondaries caught up")).await;
    assert!(alone.mongod().step_down().await.is_err());
}

#[tokio::test]
async fn the_first_user_may_change_the_set_and_make_users_and_the_next_only_read_and_write_documents() {
    let script = Script::start(ok).await;
    script.mongod().create_first_user(&user(), UserRights::Keep).await.unwrap();
    script.mongod().put_user(&user(), UserRights::Use).await.unwrap();
    let concern = doc! { "w": "majority", "wtimeout": 10_000 };
    let keep =
        [doc! { "role": "clusterManager", "db": "admin" }, doc! { "role": "userAdminAnyDatabase", "db": "admin" }];
    let uses = [doc! { "role": "readWrite", "db": "headwater" }];
    let expected = [
        doc! { "createUser": "u", "pwd": "hunter2", "roles": keep.to_vec(), "writeConcern": concern.clone() },
        doc! { "updateUser": "u", "pwd": "hunter2", "roles": uses.to_vec(), "writeConcern": concern },
    ];
    assert_eq!(script.asked(), expected);
}

#[tokio::test]
async fn a_user_that_is_not_there_is_made_and_any_other_refusal_is_told_without_the_password() {
    let script = Script::start(|name, _| {
        if name == "updateUser" {
            failure(11, "not found")
        } else {
            doc! { "ok": 1 }
        }
    })
    .await;
    script.mongod().put_user(&user(), UserRights::Use).await.unwrap();
    let names: Vec<_> = script.asked().iter().map(|command| command.keys().next().unwrap().clone()).collect();
    assert_eq!(names, ["updateUser", "createUser"]);
    let closed = Script::start(|_, _| failure(13, "not authorized")).await;
    let error = closed.mongod().create_first_user(&user(), UserRights::Keep).await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error:?}");
    assert!(!format!("{error:?} {:?}", closed.mongod()).contains("hunter2"));
}

#[tokio::test]
async fn a_wrong_password_is_no_error_and_a_database_that_is_away_is_one() {
    let script = Script::start(|name, _| match name {
        "saslStart" => failure(18, "Authentication failed."),
        _ => doc! { "ok": 1 },
    })
    .await;
    assert!(!Mongod::lets_in(script.address, &user()).await.unwrap());
    let address = script.address;
    drop(script);
    assert!(matches!(Mongod::lets_in(address, &user()).await, Err(RegistryError::Unreachable { .. })));
}
