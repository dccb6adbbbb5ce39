//! The contract against a real database, and the database's faults: through a proxy, and with a
//! scripted server.

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
use crate::{Streams as _, Timing, contract};

/// Connection string of the test database. Without one, the test prints that it is skipped.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests are configured by the environment, and skip visibly"
)]
fn uri() -> Option<String> {
    let uri = std::env::var("HEADWATER_TEST_MONGODB_URI").ok().filter(|uri| !uri.is_empty());
    if uri.is_none() {
        let ci = std::env::var("CI").unwrap_or_default();
        assert!(ci.is_empty(), "HEADWATER_TEST_MONGODB_URI is not set; in CI no test may be skipped");
        eprintln!(
            "SKIPPED: no HEADWATER_TEST_MONGODB_URI (run `tests/mongo/database run cargo test -p headwater-registry`)"
        );
    }
    uri
}

/// Prints that a test has nothing to test.
#[expect(clippy::print_stderr, reason = "a skipped test must be visible")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

impl MongoDb {
    async fn database(&self) -> mongodb::Database {
        self.driver_database("test").await.unwrap().clone()
    }
}

/// Connection string of a separate database for one test.
fn scratch_uri(uri: &str, name: &str) -> Secret {
    let database = format!("headwater_{name}_{}", std::process::id());
    let (servers, options) = uri.split_once("/?").unwrap_or((uri.trim_end_matches('/'), ""));
    Secret::new(format!("{servers}/{database}?authSource=admin&{options}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_registry_fulfils_the_contract() {
    let Some(uri) = uri() else { return };
    let uri = scratch_uri(&uri, "contract");
    contract::check(async |timing| MongoDb::open(&uri, timing).await.unwrap()).await;
    MongoDb::open(&uri, contract::TIMING).await.unwrap().database().await.drop().await.unwrap();
}

/// The contract tests that expired documents are not returned; this test, that they are removed.
#[tokio::test(flavor = "multi_thread")]
async fn database_removes_expired_documents() {
    let Some(uri) = uri() else { return };
    let registry = MongoDb::open(&scratch_uri(&uri, "expiry"), contract::SHORT_TIMING).await.unwrap();
    let incarnation = contract::register(&registry, "a").await;
    registry.claim(&incarnation, &contract::name("live/a"), &contract::offer(1), None).await.unwrap();
    let count =
        async |name| registry.database().await.collection::<Document>(name).count_documents(doc! {}).await.unwrap();
    assert_eq!((count(schema::NODES).await, count(schema::STREAMS).await), (1, 1));
    // A server removes expired documents once a minute.
    let start = Instant::now();
    while count(schema::NODES).await + count(schema::STREAMS).await > 0 {
        assert!(start.elapsed() < Duration::from_secs(180), "expired documents are not removed");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    registry.database().await.drop().await.unwrap();
}

#[tokio::test]
async fn password_is_in_no_debug_output_and_no_error() {
    let valid = "mongodb://user:hunter2@127.0.0.1:9/";
    let registry = MongoDb::open(&Secret::new(valid), Timing::default()).await.unwrap();
    assert_eq!(format!("{registry:?}"), "MongoDb(127.0.0.1:9)");
    for invalid in [
        "mongodb://user:hunter2@/",
        "hunter2",
        "http://user:hunter2@h/",
        "mongodb://user:hun/ter2@h:1/",
        "mongodb://user:hunter2@h:99999/",
    ] {
        let error = MongoDb::open(&Secret::new(invalid), Timing::default()).await.unwrap_err();
        let shown = format!("{error:?} {}", headwater_api::error::Chain(&error));
        assert!(matches!(error, crate::RegistryError::Setting { .. }), "{invalid}: {shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("ter2"), "{shown}");
    }
}
