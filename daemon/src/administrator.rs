//! Who may administer: made at the first boot of a node with a registry of its own, taken from Secrets Manager in a cluster.
//!
//! Only the hash is kept. A password that is made here is shown once, where its owner looks: in the log of that boot, or by
//! `headwaterd password`. Nothing about it follows from the machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_api::Config;
use headwater_api::config::RegistryKind;
use headwater_api::error::Chain;
use headwater_api::secret::Secret;
use headwater_api::user::{ADMINISTRATOR, HANDOVER_FILE, Rights, UserDocument};
use headwater_program::password;
use headwater_registry::{Registry as _, RegistryError, Store};
use serde::Deserialize;

use crate::aws::{Aws, AwsError};
use crate::plan::{Cluster, Plan};
use crate::reach::{self, ReachError};
use crate::{join, register};

/// Why there is no new password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdministratorError {
    /// The registry does not take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The registry cannot be had.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The cluster's secret cannot be had.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The cluster's secret is no password.
    #[error("secret {0} holds no password of at least {MIN_BYTES} characters, as text or as {{\"password\": …}}")]
    Unfit(String),
    /// The password cannot be hashed.
    #[error("could not hash the password: {0}")]
    Hash(String),
    /// It cannot be handed to the running engine.
    #[error("could not write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// The first boot of a node with a registry of its own: makes the administrator, and shows its password this once.
pub(crate) async fn at_first_boot(config: &Config) -> Result<(), AdministratorError> {
    if config.registry.kind != RegistryKind::Embedded {
        return Ok(());
    }
    let store = register::open(config).await?;
    if store.user(ADMINISTRATOR).await?.is_some() {
        return Ok(());
    }
    let (password, user) = make().await?;
    store.create_user(&user).await?;
    log::warn!(
        user = ADMINISTRATOR, password = password.reveal();
        "administrator made; the password is shown this once, `headwaterd password --reset` makes another"
    );
    Ok(())
}

/// Keeps the administrator of a cluster as its secret says, which may be changed at any time. Never ends; a secret that is not
/// there keeps nobody from serving.
pub(crate) async fn follow_secret(cluster: Option<&Cluster>, store: Option<&Store>) {
    let (Some(cluster), Some(store)) = (cluster, store) else { return std::future::pending().await };
    let aws = Aws::in_region(&cluster.region).await;
    let (mut known, mut said) = (None, String::new());
    loop {
        let pause = match take_secret(&aws, cluster, store, &mut known).await {
            Ok(()) => {
                said.clear();
                EVERY
            }
            Err(e) => {
                let why = Chain(&e).to_string();
                if why != said {
                    log::warn!(err = why.as_str(); "the cluster's administrator is not known");
                    said = why;
                }
                SOON
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// What `headwaterd password` did.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Whether there is an administrator.
    Known(bool),
    /// The node runs, and only it can say.
    Busy,
    /// A new password, in force from now on.
    Made(Secret),
    /// The password is what this secret of the cluster says.
    FromSecret(String),
}

impl Outcome {
    /// As the command prints it. The one place that shows a password to whoever asked for it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Known(true) => format!("There is an administrator, {ADMINISTRATOR}; --reset makes a new password."),
            Self::Known(false) => "There is no administrator yet; the first boot or --reset makes one.".to_owned(),
            Self::Busy => {
                "The node runs and has its registry for itself; --reset makes a new password all the same.".to_owned()
            }
            Self::Made(password) => format!("user:     {ADMINISTRATOR}\npassword: {}", password.reveal()),
            Self::FromSecret(name) => format!("The password of {ADMINISTRATOR} is now what secret {name} says."),
        }
    }
}

/// Makes a new password, in place of any before; in a cluster with a secret, that secret's is taken instead.
pub(crate) async fn reset(plan: &Plan) -> Result<Outcome, AdministratorError> {
    let opened = reach::open(plan).await;
    if let Some(cluster) = &plan.cluster {
        let aws = Aws::in_region(&cluster.region).await;
        take_secret(&aws, cluster, &opened?, &mut None).await?;
        return Ok(Outcome::FromSecret(secret_name(cluster)));
    }
    let (password, user) = make().await?;
    match opened {
        Ok(store) => store.put_user(&user).await?,
        Err(e) if e.is_locked() => hand_over(&plan.engine.node.data_dir, &user)?,
        Err(e) => return Err(e.into()),
    }
    Ok(Outcome::Made(password))
}

/// Says if there is an administrator, and changes nothing.
pub(crate) async fn look(plan: &Plan) -> Result<Outcome, AdministratorError> {
    match reach::open(plan).await {
        Ok(store) => Ok(Outcome::Known(store.user(ADMINISTRATOR).await?.is_some())),
        Err(e) if e.is_locked() => Ok(Outcome::Busy),
        Err(e) => Err(e.into()),
    }
}

/// Looks whether the registry's password is the secret's, unless `known` is, and writes it if it is not.
async fn take_secret(
    aws: &Aws,
    cluster: &Cluster,
    store: &Store,
    known: &mut Option<Secret>,
) -> Result<(), AdministratorError> {
    let name = secret_name(cluster);
    let text = aws.fetch_secret(&name).await?;
    let password = password_in(text.expose()).ok_or(AdministratorError::Unfit(name))?;
    if known.as_ref() == Some(&password) {
        return Ok(());
    }
    let mut there = store.user(ADMINISTRATOR).await?;
    if there.is_none() {
        // Of nodes that boot together one is first; a second hash of the same password would end the sessions of the first.
        match store.create_user(&user_of(password.clone()).await?).await {
            Err(RegistryError::Exists { .. }) => there = store.user(ADMINISTRATOR).await?,
            made => made?,
        }
    }
    if let Some(user) = there {
        let (shown, hash) = (password.clone(), user.password_hash);
        if hashing(move || password::verify(&shown, &hash)).await? {
            *known = Some(password);
            return Ok(());
        }
        store.put_user(&user_of(password.clone()).await?).await?;
    }
    log::info!(user = ADMINISTRATOR; "administrator's password taken from the cluster's secret");
    *known = Some(password);
    Ok(())
}

fn secret_name(cluster: &Cluster) -> String {
    format!("headwater/{}/administrator", cluster.name)
}

/// The password in a secret's text: all of it, or a field of JSON.
fn password_in(text: &str) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Field {
        password: Secret,
    }
    let text = text.trim();
    let password = match text.starts_with('{') {
        true => serde_json::from_str::<Field>(text).ok()?.password,
        false => Secret::new(text),
    };
    (password.reveal().len() >= MIN_BYTES).then_some(password)
}

async fn make() -> Result<(Secret, UserDocument), AdministratorError> {
    let password = password::generate();
    let user = user_of(password.clone()).await?;
    Ok((password, user))
}

async fn user_of(password: Secret) -> Result<UserDocument, AdministratorError> {
    let hash =
        hashing(move || password::hash(&password)).await?.map_err(|e| AdministratorError::Hash(e.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(UserDocument {
        name: ADMINISTRATOR.to_owned(),
        password_hash: hash,
        rights: Rights::Administer,
        created_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    })
}

/// Hashing takes its time: on a thread of its own.
async fn hashing<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AdministratorError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| AdministratorError::Hash(e.to_string()))
}

/// Lays the user where the running engine finds it. It belongs to whom the folder belongs to: the engine, not the caller.
fn hand_over(data_dir: &Path, user: &UserDocument) -> Result<(), AdministratorError> {
    let path = data_dir.join(HANDOVER_FILE);
    let written = serde_json::to_string(user).map_err(std::io::Error::other).and_then(|text| {
        let draft = join::write_private(data_dir, &format!("{HANDOVER_FILE}.draft"), &text)?;
        let owner = std::fs::metadata(data_dir)?;
        std::os::unix::fs::chown(&draft, Some(std::os::unix::fs::MetadataExt::uid(&owner)), None)?;
        // In one step, so that nobody reads half of it.
        std::fs::rename(draft, &path)
    });
    written.map_err(|source| AdministratorError::Write { path, source })
}

/// Of a password that somebody else made.
const MIN_BYTES: usize = 12;
/// A changed secret is noticed so late.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// Between two attempts at a secret that cannot be had.
const SOON: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::facts::Facts;
    use crate::settings::Settings;

    #[test]
    fn a_secret_is_a_password_or_holds_one() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(password_in(text).as_ref().map(Secret::reveal), expected, "{text}");
        };
        check(" a long enough one\n", Some("a long enough one"));
        check(r#"{"password": "a long enough one", "username": "admin"}"#, Some("a long enough one"));
        for useless in ["", "short", "{}", r#"{"password": "short"}"#, r#"{"password": 123456789012}"#] {
            check(useless, None);
        }
    }

    #[tokio::test]
    async fn the_first_boot_makes_one_administrator_and_a_reset_another() {
        let folder = std::env::temp_dir().join(format!("headwaterd-administrator-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = Settings::parse(&format!("node.data_dir = '{}'", folder.display())).unwrap();
        let plan = crate::plan::plan(&Facts::default(), &settings).unwrap();
        let config = plan.engine.clone();
        let hash = async || {
            let store = register::open(&config).await.unwrap();
            store.user(ADMINISTRATOR).await.unwrap().unwrap().password_hash
        };
        assert!(matches!(look(&plan).await.unwrap(), Outcome::Known(false)));
        at_first_boot(&config).await.unwrap();
        let first = hash().await;
        at_first_boot(&config).await.unwrap();
        assert_eq!(hash().await, first);
        let Outcome::Made(password) = reset(&plan).await.unwrap() else { panic!() };
        assert!(password::verify(&password, &hash().await));

        // While the node runs, the registry is the engine's.
        let _engine = register::open(&config).await.unwrap();
        assert!(matches!(look(&plan).await.unwrap(), Outcome::Busy));
        let Outcome::Made(password) = reset(&plan).await.unwrap() else { panic!() };
        let file = folder.join(HANDOVER_FILE);
        let user: UserDocument = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert!(password::verify(&password, &user.password_hash));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
