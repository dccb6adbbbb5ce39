//! The administrator account: created at the first boot of a node with an embedded registry, taken
//! from Secrets Manager in a cluster.
//!
//! Only the hash is stored. A generated password is shown once: in the log of that boot and in a
//! file that only this user can read, or by `headwaterd password`. It is random and does not depend
//! on the machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_api::Config;
use headwater_api::config::RegistryKind;
use headwater_api::control::NEW_ADMINISTRATOR_FILE;
use headwater_api::documents::{ADMINISTRATOR, Rights, UserDocument};
use headwater_api::error::Chain;
use headwater_api::secret::Secret;
use headwater_program::password;
use headwater_program::private_file::{is_caused_by_full_disk, write_private};
use headwater_registry::{Accounts as _, RegistryError, Store};
use serde::Deserialize;

use crate::aws::client::{Aws, AwsError};
use crate::boot::plan::{Cluster, Plan};
use crate::boot::registration;
use crate::cluster::open_registry;
use crate::cluster::open_registry::OpenRegistryError;
use crate::operator_command::OperatorCommand;

/// Why the administrator account could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdministratorError {
    /// A registry operation failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The registry could not be opened.
    #[error(transparent)]
    OpenRegistry(#[from] OpenRegistryError),
    /// The cluster's secret could not be fetched.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The cluster's secret holds no valid password.
    #[error(
        "secret {0} holds no password of at least {MIN_PASSWORD_BYTES} characters, as text or as {{\"password\": …}}"
    )]
    InvalidSecret(String),
    /// The password could not be hashed.
    #[error("could not hash the password: {0}")]
    Hash(String),
    /// The handover file for the running engine could not be written.
    #[error("could not write {}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// The cause of the failure.
        source: std::io::Error,
    },
}

/// At the first boot of a node with an embedded registry, creates the administrator, logs the
/// password once and writes it into a file. A full disk postpones that to the next boot.
pub(crate) async fn create_at_first_boot(config: &Config, command: &OperatorCommand) -> Result<(), AdministratorError> {
    if config.registry.kind != RegistryKind::Embedded {
        return Ok(());
    }
    match create(config, command).await {
        Err(e) if is_caused_by_full_disk(&e) => {
            log::warn!(err:% = Chain(&e); "disk is full, the administrator is not created before the next start");
            Ok(())
        }
        result => result,
    }
}

async fn create(config: &Config, command: &OperatorCommand) -> Result<(), AdministratorError> {
    let store = registration::open(config).await?;
    if store.user(ADMINISTRATOR).await?.is_some() {
        return Ok(());
    }
    let (password, user) = generate_administrator().await?;
    // Before the account, so that no account has an unknown password.
    let file = write_private(&config.node.data_dir, PASSWORD_FILE, password.reveal())
        .map_err(|source| AdministratorError::Write { path: config.node.data_dir.join(PASSWORD_FILE), source })?;
    store.create_user(&user).await?;
    log::warn!(
        user = ADMINISTRATOR, password = password.reveal(), file:% = file.display();
        "administrator created; the password is shown only this once, and is in the file until you remove it; \
         `{}` sets another", command.with("password --reset")
    );
    Ok(())
}

/// Keeps the administrator's password equal to the cluster's secret, which may change at any time.
/// Never returns; a missing secret does not stop the node from serving.
pub(crate) async fn follow_secret(cluster: Option<&Cluster>, store: Option<&Store>) {
    let (Some(cluster), Some(store)) = (cluster, store) else { return std::future::pending().await };
    let aws = Aws::in_region(&cluster.region).await;
    let (mut applied, mut last_reason) = (None, String::new());
    loop {
        let pause = match apply_secret(&aws, cluster, store, &mut applied).await {
            Ok(()) => {
                last_reason.clear();
                REFRESH_INTERVAL
            }
            Err(e) => {
                let reason = Chain(&e).to_string();
                if reason != last_reason {
                    log::warn!(err = reason.as_str(); "could not read the cluster's administrator password");
                    last_reason = reason;
                }
                RETRY_INTERVAL
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The result of `headwaterd password`.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Whether an administrator exists.
    Exists(bool),
    /// The registry is locked by the running node.
    RegistryInUse,
    /// A new password, valid from now on.
    NewPassword(Secret),
    /// The password was taken from this secret.
    FromSecret(String),
}

impl Outcome {
    /// The text that the command prints. The only function that shows a password.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Exists(true) => format!("There is an administrator, {ADMINISTRATOR}; --reset sets a new password."),
            Self::Exists(false) => "There is no administrator yet; the first boot or --reset creates one.".to_owned(),
            Self::RegistryInUse => {
                "The running node holds its registry; --reset sets a new password even so.".to_owned()
            }
            Self::NewPassword(password) => format!("user:     {ADMINISTRATOR}\npassword: {}", password.reveal()),
            Self::FromSecret(name) => format!("The password of {ADMINISTRATOR} is now the one in secret {name}."),
        }
    }
}

/// Sets a new password; in a cluster, the one in the cluster's secret.
pub(crate) async fn reset(plan: &Plan) -> Result<Outcome, AdministratorError> {
    let opened = open_registry::open(plan).await;
    if let Some(cluster) = &plan.cluster {
        let aws = Aws::in_region(&cluster.region).await;
        apply_secret(&aws, cluster, &opened?, &mut None).await?;
        return Ok(Outcome::FromSecret(secret_name(cluster)));
    }
    let (password, user) = generate_administrator().await?;
    // The password in it is no longer valid. It may have been removed.
    let _ = std::fs::remove_file(plan.engine.node.data_dir.join(PASSWORD_FILE));
    match opened {
        Ok(store) => store.put_user(&user).await?,
        Err(e) if e.is_locked() => write_handover_file(&plan.engine.node.data_dir, &user)?,
        Err(e) => return Err(e.into()),
    }
    Ok(Outcome::NewPassword(password))
}

/// Checks whether an administrator exists, and changes nothing.
pub(crate) async fn check(plan: &Plan) -> Result<Outcome, AdministratorError> {
    match open_registry::open(plan).await {
        Ok(store) => Ok(Outcome::Exists(store.user(ADMINISTRATOR).await?.is_some())),
        Err(e) if e.is_locked() => Ok(Outcome::RegistryInUse),
        Err(e) => Err(e.into()),
    }
}

/// Compares the password in the registry with the secret's, unless that one equals `applied`, and
/// updates the registry if they differ.
async fn apply_secret(
    aws: &Aws,
    cluster: &Cluster,
    store: &Store,
    applied: &mut Option<Secret>,
) -> Result<(), AdministratorError> {
    let name = secret_name(cluster);
    let text = aws.fetch_secret(&name).await?;
    let password = parse_password(text.reveal()).ok_or(AdministratorError::InvalidSecret(name))?;
    if applied.as_ref() == Some(&password) {
        return Ok(());
    }
    let mut existing = store.user(ADMINISTRATOR).await?;
    if existing.is_none() {
        // Of several nodes that boot together only one creates the account; a second hash of the
        // same password would end the sessions of the first.
        match store.create_user(&user_document(password.clone()).await?).await {
            Err(RegistryError::Exists { .. }) => existing = store.user(ADMINISTRATOR).await?,
            created => created?,
        }
    }
    if let Some(user) = existing {
        let (shown, hash) = (password.clone(), user.password_hash);
        if run_blocking(move || password::verify(&shown, &hash)).await? {
            *applied = Some(password);
            return Ok(());
        }
        store.put_user(&user_document(password.clone()).await?).await?;
    }
    log::info!(user = ADMINISTRATOR; "administrator's password taken from the cluster's secret");
    *applied = Some(password);
    Ok(())
}

fn secret_name(cluster: &Cluster) -> String {
    format!("headwater/{}/administrator", cluster.name)
}

/// Returns the password in a secret's text: the whole text, or a field of a JSON object.
fn parse_password(text: &str) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Field {
        password: Secret,
    }
    let text = text.trim();
    let password = match text.starts_with('{') {
        true => serde_json::from_str::<Field>(text).ok()?.password,
        false => Secret::new(text),
    };
    (password.reveal().len() >= MIN_PASSWORD_BYTES).then_some(password)
}

async fn generate_administrator() -> Result<(Secret, UserDocument), AdministratorError> {
    let password = password::generate();
    let user = user_document(password.clone()).await?;
    Ok((password, user))
}

async fn user_document(password: Secret) -> Result<UserDocument, AdministratorError> {
    let hash =
        run_blocking(move || password::hash(&password)).await?.map_err(|e| AdministratorError::Hash(e.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(UserDocument {
        name: ADMINISTRATOR.to_owned(),
        password_hash: hash,
        rights: Rights::Administer,
        created_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        ended_sessions: Vec::new(),
    })
}

/// Hashing is CPU-bound, so it runs on a blocking thread.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AdministratorError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| AdministratorError::Hash(e.to_string()))
}

/// Writes the user where the running engine finds it. The file belongs to the owner of the folder,
/// who runs the engine, not to the caller.
fn write_handover_file(data_dir: &Path, user: &UserDocument) -> Result<(), AdministratorError> {
    let path = data_dir.join(NEW_ADMINISTRATOR_FILE);
    let written = serde_json::to_string(user).map_err(std::io::Error::other).and_then(|text| {
        let draft = write_private(data_dir, &format!("{NEW_ADMINISTRATOR_FILE}.draft"), &text)?;
        let owner = std::fs::metadata(data_dir)?;
        std::os::unix::fs::chown(&draft, Some(std::os::unix::fs::MetadataExt::uid(&owner)), None)?;
        // Rename atomically, so that no partial file can be read.
        std::fs::rename(draft, &path)
    });
    written.map_err(|source| AdministratorError::Write { path, source })
}

/// File inside the data folder with the first password of the administrator.
const PASSWORD_FILE: &str = "administrator.password";
/// Minimum length of a password that an operator chose.
const MIN_PASSWORD_BYTES: usize = 12;
/// Interval between two reads of the secret.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Interval after a failed read.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::boot::facts::Facts;
    use crate::boot::settings::Settings;

    #[test]
    fn secret_is_a_password_or_json_with_a_password() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse_password(text).as_ref().map(Secret::reveal), expected, "{text}");
        };
        check(" a long enough one\n", Some("a long enough one"));
        check(r#"{"password": "a long enough one", "username": "admin"}"#, Some("a long enough one"));
        for useless in ["", "short", "{}", r#"{"password": "short"}"#, r#"{"password": 123456789012}"#] {
            check(useless, None);
        }
    }

    #[tokio::test]
    async fn first_boot_creates_one_administrator_and_reset_changes_the_password() {
        let folder = std::env::temp_dir().join(format!("headwaterd-administrator-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = Settings::parse(&format!("node.data_dir = '{}'", folder.display())).unwrap();
        let plan = crate::boot::plan::plan(&Facts::default(), &settings).unwrap();
        let config = plan.engine.clone();
        let hash = async || {
            let store = registration::open(&config).await.unwrap();
            store.user(ADMINISTRATOR).await.unwrap().unwrap().password_hash
        };
        assert!(matches!(check(&plan).await.unwrap(), Outcome::Exists(false)));
        create_at_first_boot(&config, &OperatorCommand::new(None, None)).await.unwrap();
        let first = hash().await;
        let password_file = folder.join(PASSWORD_FILE);
        let password = Secret::new(std::fs::read_to_string(&password_file).unwrap().trim());
        assert!(password::verify(&password, &first));
        assert_eq!(std::fs::metadata(&password_file).unwrap().permissions().mode() & 0o777, 0o600);
        create_at_first_boot(&config, &OperatorCommand::new(None, None)).await.unwrap();
        assert_eq!(hash().await, first);
        let Outcome::NewPassword(password) = reset(&plan).await.unwrap() else { panic!() };
        assert!(password::verify(&password, &hash().await) && !password_file.exists());

        // While the node runs, its engine holds the registry.
        let _engine = registration::open(&config).await.unwrap();
        assert!(matches!(check(&plan).await.unwrap(), Outcome::RegistryInUse));
        let Outcome::NewPassword(password) = reset(&plan).await.unwrap() else { panic!() };
        let file = folder.join(NEW_ADMINISTRATOR_FILE);
        let user: UserDocument = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert!(password::verify(&password, &user.password_hash));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
