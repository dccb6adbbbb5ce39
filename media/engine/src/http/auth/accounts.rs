//! Authenticates users of the registry by password or by session.
//!
//! Caches users, so that sessions remain valid while the registry is unreachable. Passwords are
//! hashed on blocking threads, at most two at a time. An unknown name takes as long as a wrong
//! password.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headwater_api::error::Chain;
use headwater_api::secret::Secret;
use headwater_api::user::{HANDOVER_FILE, UserDocument};
use headwater_program::password;
use headwater_registry::{Registry as _, Store};
use ring::hmac;
use tokio::sync::Semaphore;

use super::key::SessionKey;
use super::session::{LIFETIME_S, Session, fingerprint};
use super::throttle::Throttle;

/// Authenticates the users of a node.
#[derive(Debug)]
pub struct Accounts {
    registry: Store,
    key: SessionKey,
    handover: Option<PathBuf>,
    known: Mutex<HashMap<String, (Instant, Arc<UserDocument>)>>,
    throttle: Mutex<Throttle>,
    hashing: Semaphore,
    shown: Mutex<Option<Shown>>,
    /// Key of the tag in `last_verified`; random for each process.
    shown_key: hmac::Key,
}

/// The last correct credentials. Programs send them with every request; the cache saves the
/// hashing.
#[derive(Debug, Clone)]
struct Shown {
    tag: hmac::Tag,
    user: Arc<UserDocument>,
    at: Instant,
}

/// Why a login fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// Unknown user or wrong password.
    Wrong,
    /// Too many attempts in a period, or at the same time.
    TooMany,
    /// The registry is unreachable, and the user is not cached.
    Away,
}

impl Accounts {
    /// Performs no I/O. `handover` is the data folder of a node with an embedded registry: another
    /// process changes the password by writing a user document there, because it cannot open the
    /// registry.
    pub fn new(registry: Store, key: SessionKey, handover: Option<PathBuf>) -> Self {
        Self {
            registry,
            key,
            handover: handover.map(|folder| folder.join(HANDOVER_FILE)),
            known: Mutex::default(),
            throttle: Mutex::new(Throttle::new(Instant::now())),
            hashing: Semaphore::new(HASHING),
            shown: Mutex::new(None),
            shown_key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
        }
    }

    /// Authenticates a user by name and password. `from` is the client's address, for the throttle.
    pub(super) async fn by_password(
        &self,
        from: IpAddr,
        name: &str,
        password: Secret,
    ) -> Result<Arc<UserDocument>, Denied> {
        if name.len() > MAX_NAME_BYTES || password.reveal().len() > MAX_PASSWORD_BYTES {
            return Err(Denied::Wrong);
        }
        let text = format!("{name}\0{}", password.reveal());
        let user = self.user(name).await;
        let shown = lock(&self.shown).clone();
        if let (Some(shown), Ok(Some(user))) = (shown, &user)
            && shown.at.elapsed() < SHOWN
            && shown.user == *user
            && hmac::verify(&self.shown_key, text.as_bytes(), shown.tag.as_ref()).is_ok()
        {
            return Ok(Arc::clone(user));
        }
        lock(&self.throttle).attempt(Instant::now(), from).map_err(|_| Denied::TooMany)?;
        let user = user.map_err(|()| Denied::Away)?;
        let hash = user.as_ref().map_or_else(|| Secret::new(NOBODY), |user| user.password_hash.clone());
        // The throttle has already counted this attempt, which bounds the number of waiting ones.
        let permit = tokio::time::timeout(PATIENCE, self.hashing.acquire()).await.map_err(|_| Denied::TooMany)?;
        let right = tokio::task::spawn_blocking(move || password::verify(&password, &hash)).await.unwrap_or(false);
        drop(permit);
        match user.filter(|_| right) {
            Some(user) => {
                lock(&self.throttle).was_right(Instant::now(), from);
                let tag = hmac::sign(&self.shown_key, text.as_bytes());
                *lock(&self.shown) = Some(Shown { tag, user: Arc::clone(&user), at: Instant::now() });
                Ok(user)
            }
            None => {
                log::info!(peer:% = from; "wrong name or password");
                Err(Denied::Wrong)
            }
        }
    }

    /// The user of a session cookie, and the end of the session in Unix seconds; `None` if it is
    /// invalid.
    pub(super) async fn by_session(&self, cookie: &str, now_s: u64) -> Option<(Arc<UserDocument>, u64)> {
        let session = Session::open(cookie, &self.key, now_s)?;
        let user = self.user(&session.user).await.ok()??;
        (fingerprint(&user.password_hash) == session.password).then_some((user, session.expires_s))
    }

    /// Returns the cookie of a new session, and its end in Unix seconds.
    pub(super) fn begin_session(&self, user: &UserDocument, now_s: u64) -> (String, u64) {
        let expires_s = now_s + LIFETIME_S;
        let session = Session { user: user.name.clone(), expires_s, password: fingerprint(&user.password_hash) };
        (session.seal(&self.key), expires_s)
    }

    /// The user with this name; an error if the registry is unreachable and the user is not cached.
    async fn user(&self, name: &str) -> Result<Option<Arc<UserDocument>>, ()> {
        self.take_over().await;
        let known = lock(&self.known).get(name).cloned();
        if let Some((at, user)) = &known
            && at.elapsed() < FRESH
        {
            return Ok(Some(Arc::clone(user)));
        }
        match tokio::time::timeout(ASK, self.registry.user(name)).await {
            Ok(Ok(Some(user))) => {
                let user = Arc::new(user);
                let mut known = lock(&self.known);
                if known.len() >= MAX_KNOWN {
                    known.clear();
                }
                known.insert(name.to_owned(), (Instant::now(), Arc::clone(&user)));
                Ok(Some(user))
            }
            Ok(Ok(None)) => {
                lock(&self.known).remove(name);
                Ok(None)
            }
            Ok(Err(_)) | Err(_) => match known {
                Some((_, user)) => {
                    // Extend the cache entry, to not query the registry for every request.
                    lock(&self.known).insert(name.to_owned(), (Instant::now(), Arc::clone(&user)));
                    Ok(Some(user))
                }
                None => Err(()),
            },
        }
    }

    /// Imports the user document in the data folder into the registry, and deletes the file.
    async fn take_over(&self) {
        let Some(path) = self.handover.as_deref().filter(|path| path.exists()) else { return };
        let taken = async {
            let user: UserDocument = serde_json::from_slice(&std::fs::read(path)?).map_err(std::io::Error::other)?;
            self.registry.put_user(&user).await.map_err(std::io::Error::other)?;
            lock(&self.known).remove(&user.name);
            log::info!(user = user.name.as_str(); "new password imported");
            Ok::<_, std::io::Error>(())
        };
        if let Err(e) = taken.await {
            log::warn!(err:% = Chain(&e); "could not import a new password");
        }
        // Delete an invalid file too, so that it is not tried again.
        let _ = std::fs::remove_file(path);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hash for unknown names: verifying it takes as long as a user's hash, and it matches no known
/// password.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmU$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Maximum number of concurrent hashes: each takes 19 MiB and tens of milliseconds of a core.
const HASHING: usize = 2;
/// Maximum time to wait for a hash permit.
const PATIENCE: Duration = Duration::from_secs(5);
/// Age at which a cached user is read again: sessions end this long after a password change.
const FRESH: Duration = Duration::from_secs(2);
/// Maximum time of a registry query.
const ASK: Duration = Duration::from_secs(1);
/// Time for which a correct password is not hashed again.
const SHOWN: Duration = Duration::from_secs(60);
const MAX_NAME_BYTES: usize = 64;
const MAX_PASSWORD_BYTES: usize = 256;
const MAX_KNOWN: usize = 100;

#[cfg(test)]
mod tests {
    use headwater_api::user::Rights;
    use headwater_registry::Embedded;

    use super::*;

    struct Place {
        folder: PathBuf,
        store: Store,
    }

    impl Place {
        async fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("headwater-accounts-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let store = Store::Embedded(Embedded::open(&folder).unwrap());
            store.create_user(&administrator("right")).await.unwrap();
            Self { folder, store }
        }

        fn accounts(&self) -> Accounts {
            Accounts::new(self.store.clone(), SessionKey::of(b"what all nodes share"), Some(self.folder.clone()))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    fn administrator(password: &str) -> UserDocument {
        UserDocument {
            name: "admin".to_owned(),
            password_hash: password::hash(&Secret::new(password)).unwrap(),
            rights: Rights::Administer,
            created_at_ms: 0,
        }
    }

    async fn attempt(accounts: &Accounts, name: &str, password: &str) -> Result<Arc<UserDocument>, Denied> {
        accounts.by_password(IpAddr::from([192, 0, 2, 1]), name, Secret::new(password)).await
    }

    #[tokio::test]
    async fn only_the_right_name_and_password_are_accepted() {
        let place = Place::new("in").await;
        let accounts = place.accounts();
        assert_eq!(attempt(&accounts, "admin", "right").await.unwrap().name, "admin");
        for (name, password) in [("admin", "wrong"), ("admin", ""), ("root", "right"), ("", ""), ("admin", NOBODY)] {
            assert_eq!(attempt(&accounts, name, password).await, Err(Denied::Wrong), "{name} {password}");
        }
        assert_eq!(attempt(&accounts, "admin", &"x".repeat(10_000)).await, Err(Denied::Wrong));
    }

    #[tokio::test]
    async fn wrong_passwords_are_throttled_and_repeated_correct_ones_are_not() {
        let place = Place::new("guess").await;
        let accounts = place.accounts();
        for _ in 0..30 {
            attempt(&accounts, "admin", "right").await.unwrap();
        }
        for n in 0..8 {
            assert_eq!(attempt(&accounts, "admin", &n.to_string()).await, Err(Denied::Wrong));
        }
        assert_eq!(attempt(&accounts, "admin", "8").await, Err(Denied::TooMany));
        attempt(&accounts, "admin", "right").await.unwrap();
    }

    #[tokio::test]
    async fn imported_password_ends_all_sessions() {
        let place = Place::new("new").await;
        let (accounts, other_node) = (place.accounts(), place.accounts());
        let user = attempt(&accounts, "admin", "right").await.unwrap();
        let (cookie, expires_s) = accounts.begin_session(&user, 1_000);
        assert_eq!(other_node.by_session(&cookie, 1_001).await, Some((user, expires_s)));
        assert_eq!(accounts.by_session(&cookie, expires_s).await, None);

        let file = place.folder.join(HANDOVER_FILE);
        std::fs::write(&file, serde_json::to_vec(&administrator("new")).unwrap()).unwrap();
        assert_eq!(accounts.by_session(&cookie, 1_001).await, None);
        assert!(!file.exists());
        assert_eq!(attempt(&accounts, "admin", "right").await, Err(Denied::Wrong));
        attempt(&accounts, "admin", "new").await.unwrap();

        std::fs::write(&file, "no user").unwrap();
        attempt(&accounts, "admin", "new").await.unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn unknown_name_has_the_same_hash_cost_as_a_known_one() {
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(NOBODY), cost(password::hash(&Secret::new("x")).unwrap().reveal()));
        assert!(argon2::password_hash::phc::PasswordHash::new(NOBODY).is_ok());
    }
}
