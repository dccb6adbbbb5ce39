//! Checks that the registry can be reached, read and written.

use headwater_api::error::Chain;
use headwater_registry::{Registry as _, RegistryError, Store};

use super::Finding;
use crate::cluster::open_registry::OpenRegistryError;
use crate::cluster::shared_registry::SharedRegistryError;

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
        Some(Err(e)) => return (Finding::fail(CHECK, Chain(e).to_string(), remedy_for_open_error(e)), None),
    };
    match (store.probe().await, store) {
        (Ok(_), Store::Embedded(_)) => (Finding::ok(CHECK, "a file of this node, can be written"), None),
        (Ok(time_ms), Store::MongoDb(_)) => (Finding::ok(CHECK, "MongoDB answers and can be written"), Some(time_ms)),
        (Err(e), _) => (Finding::fail(CHECK, Chain(&e).to_string(), remedy_for_registry_error(&e)), None),
    }
}

fn remedy_for_open_error(error: &OpenRegistryError) -> &'static str {
    match error {
        OpenRegistryError::Registry(e) => remedy_for_registry_error(e),
        OpenRegistryError::Shared(e) => match e {
            SharedRegistryError::Aws(e) if super::clock::is_clock_error(&Chain(e).to_string()) => {
                "correct this machine's clock"
            }
            SharedRegistryError::Aws(_) => ALLOW_ACTION,
            SharedRegistryError::NoInstances(_) => START_DATABASE,
            SharedRegistryError::InvalidSecret(_)
            | SharedRegistryError::NoLogin(_)
            | SharedRegistryError::ReservedUser(_)
            | SharedRegistryError::InvalidConnectionString { .. }
            | SharedRegistryError::PasswordInTag
            | SharedRegistryError::NotHosts(_)
            | SharedRegistryError::InvalidHost(_) => CORRECT_SECRET,
        },
    }
}

fn remedy_for_registry_error(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::Setting { .. } => CORRECT_SECRET,
        RegistryError::Open { .. }
        | RegistryError::Locked { .. }
        | RegistryError::Corrupt { .. }
        | RegistryError::Version { .. }
        | RegistryError::Read { .. }
        | RegistryError::Write { .. } => CHECK_FOLDER,
        RegistryError::Refused { retryable: true, .. } => CHECK_DATABASE_LOG,
        RegistryError::Refused { source, .. } | RegistryError::Unreachable { source, .. } => {
            remedy_for_cause(&**source)
        }
        RegistryError::Superseded { .. }
        | RegistryError::NotRegistered { .. }
        | RegistryError::Taken { .. }
        | RegistryError::Changed { .. }
        | RegistryError::Exists { .. } => START_DATABASE,
    }
}

/// Chooses the remedy by the words of the database driver, whose errors have no type here.
fn remedy_for_cause(cause: &(dyn std::error::Error + 'static)) -> &'static str {
    let text = Chain(cause).to_string();
    let mentions = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if mentions(&["uthentication", "password"]) {
        COMPARE_LOGIN
    } else if mentions(&["certificate", "tls", "TLS"]) {
        CHECK_CERTIFICATE
    } else {
        START_DATABASE
    }
}

const ALLOW_ACTION: &str = "allow the action for the instance's role (docs/ec2.md), and check that the secret exists";
const CORRECT_SECRET: &str = "correct what the secret or the tag holds (docs/ec2.md)";
const COMPARE_LOGIN: &str = "compare user and password in the secret with the database's";
const CHECK_CERTIFICATE: &str = "check that the database's certificate is valid for its name and signed by tlsCAFile";
const CHECK_FOLDER: &str = "check data_dir in [node]: its owner, its permissions, its disk";
const CHECK_DATABASE_LOG: &str = "read the database's log: its disk may be full, or too few of its members run";
const START_DATABASE: &str = "check that the database runs, and that its security group admits this node on port 27017";

#[cfg(test)]
mod tests {
    use headwater_api::config::{self, RegistryKind};
    use headwater_registry::RegistryError;

    use super::super::{CheckStatus, plan_from};
    use super::*;
    use crate::cluster::open_registry;

    fn text(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn remedy_follows_from_the_kind_of_the_error_and_not_from_names_in_it() {
        // The name of each secret and host contains the words of other errors.
        let misleading = || text("tls-password-certificate.secretsmanager.damaged");
        let setting = || RegistryError::Setting { reason: misleading(), source: None };
        let open = |e: SharedRegistryError, expected: &str| {
            assert_eq!(remedy_for_open_error(&OpenRegistryError::Shared(e)), expected);
        };
        open(SharedRegistryError::InvalidConnectionString { secret: misleading(), source: setting() }, CORRECT_SECRET);
        open(SharedRegistryError::InvalidHost(misleading()), CORRECT_SECRET);
        open(SharedRegistryError::PasswordInTag, CORRECT_SECRET);
        open(SharedRegistryError::NoInstances(misleading()), START_DATABASE);
        let registry = |e: RegistryError, expected: &str| assert_eq!(remedy_for_registry_error(&e), expected, "{e:?}");
        registry(setting(), CORRECT_SECRET);
        registry(RegistryError::Version { path: "/tls/password".into() }, CHECK_FOLDER);
        let unreachable = |cause: &str| RegistryError::Unreachable {
            attempted: text("read nodes"),
            servers: misleading(),
            source: cause.into(),
        };
        registry(unreachable("connection refused"), START_DATABASE);
        registry(unreachable("invalid peer certificate: UnknownIssuer"), CHECK_CERTIFICATE);
        let refused = |retryable: bool, cause: &str| RegistryError::Refused {
            attempted: text("read nodes"),
            servers: misleading(),
            retryable,
            source: cause.into(),
        };
        registry(refused(true, "OutOfDiskSpace"), CHECK_DATABASE_LOG);
        registry(refused(false, "SCRAM failure: Authentication failed"), COMPARE_LOGIN);
    }

    #[test]
    fn refused_request_to_aws_is_remedied_by_a_permission_unless_the_clock_is_wrong() {
        let error = |cause: &str| OpenRegistryError::Shared(crate::aws::client::AwsError::test(cause).into());
        assert_eq!(remedy_for_open_error(&error("AccessDenied")), ALLOW_ACTION);
        assert_eq!(remedy_for_open_error(&error("Signature expired: 2026")), "correct this machine's clock");
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
