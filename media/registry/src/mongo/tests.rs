//! The contract against a real database, and the database's faults: with a proxy in front of it, and as a script.

mod commands;
mod faults;
mod proxy;
mod scripted;
mod wire;
mod writes;

use std::time::{Duration, Instant};

use headwater_api::secret::Secret;
use mongodb::bson::{Document, doc};

use super::{MongoDb, schema};
use crate::{Registry as _, Timing, contract};

/// The database for tests, or none, which is then said.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests are told by the environment, and skip aloud"
)]
fn uri() -> Option<String> {
    let uri = std::env::var("HEADWATER_TEST_MONGODB_URI").ok().filter(|uri| !uri.is_empty());
    if uri.is_none() {
        let ci = std::env::var("CI").unwrap_or_default();
        assert!(ci.is_empty(), "HEADWATER_TEST_MONGODB_URI is not set, and in CI nothing is skipped");
        eprintln!(
            "SKIPPED: no HEADWATER_TEST_MONGODB_URI (run `tests/mongo/database run cargo test -p headwater-registry`)"
        );
    }
    uri
}

/// Says that a test has nothing to test.
#[expect(clippy::print_stderr, reason = "skipping aloud is what this is for")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

impl MongoDb {
    /// The driver's.
    async fn database(&self) -> mongodb::Database {
        self.0.link.known("test").await.unwrap().database.clone()
    }
}

/// The connection string of a database of its own for one test.
fn scratch(uri: &str, name: &str) -> Secret {
    let database = format!("headwater_{name}_{}", std::process::id());
    let (servers, options) = uri.split_once("/?").unwrap_or((uri.trim_end_matches('/'), ""));
    Secret::new(format!("{servers}/{database}?authSource=admin&{options}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mongodb_registry_keeps_the_contract() {
    let Some(uri) = uri() else { return };
    let uri = scratch(&uri, "contract");
    contract::check(async |timing| MongoDb::open(&uri, timing).await.unwrap()).await;
    MongoDb::open(&uri, contract::TIMING).await.unwrap().database().await.drop().await.unwrap();
}

/// The contract sees to it that what is over is not seen; this, that it does not stay for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_removes_what_has_expired() {
    let Some(uri) = uri() else { return };
    let registry = MongoDb::open(&scratch(&uri, "expiry"), contract::BRIEF).await.unwrap();
    let life = contract::register(&registry, "a").await;
    registry.claim(&life, &contract::name("live/a"), &contract::offer(1), None).await.unwrap();
    let left =
        async |name| registry.database().await.collection::<Document>(name).count_documents(doc! {}).await.unwrap();
    assert_eq!((left(schema::NODES).await, left(schema::STREAMS).await), (1, 1));
    // A server looks once a minute.
    let began = Instant::now();
    while left(schema::NODES).await + left(schema::STREAMS).await > 0 {
        assert!(began.elapsed() < Duration::from_secs(180), "expired documents stay");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    registry.database().await.drop().await.unwrap();
}

#[tokio::test]
async fn nothing_that_opens_or_fails_shows_the_password() {
    let good = "mongodb://user:hunter2@127.0.0.1:9/";
    let registry = MongoDb::open(&Secret::new(good), Timing::default()).await.unwrap();
    assert_eq!(format!("{registry:?}"), "MongoDb(127.0.0.1:9)");
    for bad in [
        "mongodb://user:hunter2@/",
        "hunter2",
        "http://user:hunter2@h/",
        "mongodb://user:hun/ter2@h:1/",
        "mongodb://user:hunter2@h:99999/",
    ] {
        let error = MongoDb::open(&Secret::new(bad), Timing::default()).await.unwrap_err();
        let shown = format!("{error:?} {}", headwater_api::error::Chain(&error));
        assert!(matches!(error, crate::RegistryError::Setting { .. }), "{bad}: {shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("ter2"), "{shown}");
    }
}
