//! The contract against a real database, and the database's faults.

use headwater_api::error::Chain;
use headwater_api::secret::Secret;

use super::MongoDb;
use crate::contract;

/// The database for tests, or none, which is then said.
#[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "tests are told by the environment, and skip aloud")]
fn uri() -> Option<String> {
    let uri = std::env::var("HEADWATER_TEST_MONGODB_URI").ok().filter(|uri| !uri.is_empty());
    if uri.is_none() {
        let ci = std::env::var("CI").unwrap_or_default();
        assert!(ci.is_empty(), "HEADWATER_TEST_MONGODB_URI is not set, and in CI nothing is skipped");
        eprintln!("SKIPPED: HEADWATER_TEST_MONGODB_URI is not set (run `tests/mongo/database run cargo test -p headwater-registry`)");
    }
    uri
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
    contract::check(async || MongoDb::open(&uri, contract::TIMING).await.unwrap()).await;
    let registry = MongoDb::open(&uri, contract::TIMING).await.unwrap();
    if let Err(e) = registry.0.database.drop().await {
        panic!("{}", Chain(&e));
    }
}
