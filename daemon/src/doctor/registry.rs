//! Checks that the registry can be reached, read and written.

use headwater_api::error::Chain;
use headwater_registry::{Registry as _, Store};

use super::Finding;
use crate::cluster::open_registry::OpenRegistryError;

const CHECK: &str = "registry";

/// Writes and reads the probe document. Also returns the Unix time of a shared registry in
/// milliseconds.
pub(super) async fn check(opened: Option<&Result<Store, OpenRegistryError>>) -> (Finding, Option<u64>) {
    let store = match opened {
        None => return (Finding::skip(CHECK, "unknown without a role"), None),
        Some(Ok(store)) => store,
        Some(Err(e)) if e.is_locked() => {
            return (Finding::ok(CHECK, "a file of this node, in use by the running node"), None);
        }
        Some(Err(e)) => return (Finding::fail(CHECK, Chain(e).to_string(), remedy_for(&Chain(e).to_string())), None),
    };
    match (store.probe().await, store) {
        (Ok(_), Store::Embedded(_)) => (Finding::ok(CHECK, "a file of this node, can be written"), None),
        (Ok(time_ms), Store::MongoDb(_)) => (Finding::ok(CHECK, "MongoDB answers and can be written"), Some(time_ms)),
        (Err(e), _) => (Finding::fail(CHECK, Chain(&e).to_string(), remedy_for(&Chain(&e).to_string())), None),
    }
}

/// Chooses the remedy by the words of the error.
fn remedy_for(error: &str) -> &'static str {
    let mentions = |words: &[&str]| words.iter().any(|word| error.contains(word));
    if super::clock::is_clock_error(error) {
        "correct this machine's clock"
    } else if mentions(&["connection string", "tag `headwater:registry`"]) {
        "correct what the secret or the tag holds (docs/ec2.md)"
    } else if mentions(&["secretsmanager", "ec2:Describe"]) {
        "allow the action for the instance's role (docs/ec2.md), and check that the secret exists"
    } else if mentions(&["uthentication", "password"]) {
        "compare user and password in the secret with the database's"
    } else if mentions(&["certificate", "tls", "TLS"]) {
        "check that the database's certificate is valid for its name and signed by tlsCAFile"
    } else if mentions(&["damaged", "format of another version", "could not open"]) {
        "check data_dir in [node]: its owner, its permissions, its disk"
    } else {
        "check that the database runs, and that its security group admits this node on port 27017"
    }
}

#[cfg(test)]
mod tests {
    use headwater_api::config::{self, RegistryKind};
    use headwater_registry::RegistryError;

    use super::super::{CheckStatus, plan_from};
    use super::*;
    use crate::cluster::open_registry;

    #[test]
    fn invalid_connection_string_or_tag_is_not_blamed_on_the_database() {
        for error in [
            "secret s is unusable: the MongoDB connection string is invalid: invalid port in tls",
            "tag `headwater:registry` holds a password; name hosts or a secret there",
        ] {
            assert!(remedy_for(error).contains("what the secret or the tag holds"), "{}", remedy_for(error));
        }
    }

    #[tokio::test]
    async fn writable_registry_passes_and_so_does_one_in_use() {
        let folder = std::env::temp_dir().join(format!("headwaterd-doctor-registry-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let plan = plan_from(&format!("node.data_dir = '{}'", folder.display()));
        let opened = open_registry::open(&plan).await;
        assert_eq!(check(Some(&opened)).await, (Finding::ok("registry", "a file of this node, can be written"), None));
        let locked = Err(OpenRegistryError::Registry(RegistryError::Locked { path: folder.clone() }));
        assert_eq!(check(Some(&locked)).await.0.status, CheckStatus::Ok);
        drop(opened);
        std::fs::write(folder.join(headwater_registry::FILE_NAME), "no registry").unwrap();
        let (found, _) = check(Some(&open_registry::open(&plan).await)).await;
        assert_eq!(found.status, CheckStatus::Fail);
        assert!(found.remedy.contains("data_dir"), "{found:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn unreachable_database_fails_without_showing_its_password() {
        let folder = std::env::temp_dir().join(format!("headwaterd-doctor-away-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let uri_file = folder.join("uri");
        std::fs::write(&uri_file, "mongodb://user:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=200").unwrap();
        let config = config::Registry { kind: RegistryKind::MongoDb, uri_file: Some(uri_file) };
        let opened = Store::open(&config, &folder).await.map_err(OpenRegistryError::from);
        let (found, clock) = check(Some(&opened)).await;
        assert_eq!((found.status, clock), (CheckStatus::Fail, None));
        assert!(found.message.contains("127.0.0.1:1") && !format!("{found:?}").contains("hunter2"), "{found:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
