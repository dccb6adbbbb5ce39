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
        None => return (Finding::skip(CHECK, "not known without a role"), None),
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
fn remedy_for(why: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if super::clock::is_clock_error(why) {
        "put this machine's clock right"
    } else if says(&["connection string", "tag `headwater:registry`"]) {
        "put right what the secret or the tag holds (docs/ec2.md)"
    } else if says(&["secretsmanager", "ec2:Describe"]) {
        "allow the action to the instance's role (docs/ec2.md), and see that the secret is there"
    } else if says(&["uthentication", "password"]) {
        "compare user and password in the secret with the database's"
    } else if says(&["certificate", "tls", "TLS"]) {
        "see that the database's certificate is valid for its name and signed by tlsCAFile"
    } else if says(&["damaged", "format of another version", "could not open"]) {
        "look at data_dir in [node]: its owner, its rights, its disk"
    } else {
        "see that the database runs, and that its security group lets port 27017 in from this node"
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
    fn a_string_or_a_tag_that_is_no_good_is_not_blamed_on_the_database() {
        for why in [
            "secret s is of no use: the MongoDB connection string is no good: invalid port in tls",
            "tag `headwater:registry` holds a password; name hosts or a secret there",
        ] {
            assert!(remedy_for(why).contains("what the secret or the tag holds"), "{}", remedy_for(why));
        }
    }

    #[tokio::test]
    async fn a_registry_that_can_be_written_is_well_and_one_that_is_in_use_too() {
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
    async fn a_database_that_is_away_fails_and_a_password_in_the_address_is_not_shown() {
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
