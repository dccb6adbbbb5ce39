//! Authenticates users of the registry by password or by session.
//!
//! Caches users, so that sessions remain valid while the registry is unreachable. Passwords are
//! hashed on blocking threads, at most two at a time. An unknown name takes as long as a wrong
//! password.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headwater_api::control::NEW_ADMINISTRATOR_FILE;
use headwater_api::documents::{MAX_ENDED_SESSIONS, UserDocument};
use headwater_api::error::Chain;
use headwater_api::secret::Secret;
use headwater_program::password;
use headwater_registry::{Accounts as _, Store};
use ring::hmac;
use tokio::sync::Semaphore;

use super::key::SessionKey;
use super::local_key::LocalKey;
use super::session::{LIFETIME_S, Session, fingerprint, random_id};
use super::throttle::Throttle;

/// Authenticates the users of a node.
#[derive(Debug)]
pub struct Accounts {
    registry: Store,
    key: SessionKey,
    local_key: Option<LocalKey>,
    handover: Option<PathBuf>,
    user_cache: Mutex<HashMap<String, (Instant, Arc<UserDocument>)>>,
    /// Sessions that ended here, also while the registry is unreachable; the latest last.
    ended_sessions: Mutex<VecDeque<String>>,
    throttle: Mutex<Throttle>,
    hash_permits: Semaphore,
    last_verified: Mutex<Option<VerifiedPassword>>,
    /// Key of the tag in `last_verified`; random for each process.
    verified_key: hmac::Key,
}

/// The last correct credentials. Programs send them with every request; the cache saves the
/// hashing.
#[derive(Debug, Clone)]
struct VerifiedPassword {
    tag: hmac::Tag,
    user: Arc<UserDocument>,
    at: Instant,
}

/// Why a login fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginError {
    /// Unknown user or wrong password.
    WrongPassword,
    /// Too many attempts in a period, or at the same time.
    TooManyAttempts,
    /// The registry is unreachable, and the user is not cached.
    RegistryUnreachable,
}

impl Accounts {
    /// Performs no I/O. `handover` is the data folder of a node with an embedded registry: another
    /// process changes the password by writing a user document there, because it cannot open the
    /// registry.
    pub fn new(registry: Store, key: SessionKey, handover: Option<PathBuf>) -> Self {
        Self {
            registry,
            key,
            local_key: None,
            handover: handover.map(|folder| folder.join(NEW_ADMINISTRATOR_FILE)),
            user_cache: Mutex::default(),
            ended_sessions: Mutex::default(),
            throttle: Mutex::new(Throttle::new(Instant::now())),
            hash_permits: Semaphore::new(MAX_CONCURRENT_HASHES),
            last_verified: Mutex::new(None),
            verified_key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
        }
    }

    /// Also accepts the key of a command on this machine.
    pub fn with_local_key(self, local_key: Option<LocalKey>) -> Self {
        Self { local_key, ..self }
    }

    /// The administrator, if `presented` is the key of a command on this machine.
    pub(super) fn by_local_key(&self, presented: &str) -> Option<Arc<UserDocument>> {
        self.local_key.as_ref()?.user(presented)
    }

    /// Authenticates a user by name and password. `from` is the client's address, for the throttle.
    pub(super) async fn by_password(
        &self,
        from: IpAddr,
        name: &str,
        password: Secret,
    ) -> Result<Arc<UserDocument>, LoginError> {
        if name.len() > MAX_NAME_BYTES || password.reveal().len() > MAX_PASSWORD_BYTES {
            return Err(LoginError::WrongPassword);
        }
        let text = format!("{name}\0{}", password.reveal());
        let user = self.user(name).await;
        let last_verified = lock(&self.last_verified).clone();
        if let (Some(last_verified), Ok(Some(user))) = (last_verified, &user)
            && last_verified.at.elapsed() < VERIFIED_TTL
            && last_verified.user.password_hash == user.password_hash
            && hmac::verify(&self.verified_key, text.as_bytes(), last_verified.tag.as_ref()).is_ok()
        {
            return Ok(Arc::clone(user));
        }
        let delay = lock(&self.throttle).attempt(Instant::now(), from).map_err(|_| LoginError::TooManyAttempts)?;
        // The client cannot save this time: an attempt that it cancels counts as failed.
        tokio::time::sleep(delay).await;
        let user = user.map_err(|()| LoginError::RegistryUnreachable)?;
        let hash = user.as_ref().map_or_else(|| Secret::new(DUMMY_HASH), |user| user.password_hash.clone());
        // The throttle has already counted this attempt, which bounds the number of waiting ones.
        let permit = tokio::time::timeout(HASH_WAIT_TIMEOUT, self.hash_permits.acquire())
            .await
            .map_err(|_| LoginError::TooManyAttempts)?;
        let right = tokio::task::spawn_blocking(move || password::verify(&password, &hash)).await.unwrap_or(false);
        drop(permit);
        match user.filter(|_| right) {
            Some(user) => {
                lock(&self.throttle).on_success(Instant::now(), from);
                let tag = hmac::sign(&self.verified_key, text.as_bytes());
                *lock(&self.last_verified) =
                    Some(VerifiedPassword { tag, user: Arc::clone(&user), at: Instant::now() });
                Ok(user)
            }
            None => {
                log::info!(peer:% = from; "wrong name or password");
                Err(LoginError::WrongPassword)
            }
        }
    }

    /// The user of a session cookie, and the end of the session in Unix seconds; `None` if it is
    /// invalid.
    pub(super) async fn by_session(&self, cookie: &str, now_s: u64) -> Option<(Arc<UserDocument>, u64)> {
        let session = Session::open(cookie, &self.key, now_s)?;
        let user = self.user(&session.user).await.ok()??;
        let is_valid = fingerprint(&user.password_hash) == session.password_fingerprint
            && !user.ended_sessions.contains(&session.id)
            && !lock(&self.ended_sessions).contains(&session.id);
        is_valid.then_some((user, session.expires_s))
    }

    /// Ends a session: here at once, on the other nodes of the cluster after [`USER_CACHE_TTL`]. If
    /// the registry is unreachable, the session remains valid on the other nodes.
    pub(super) async fn end_session(&self, cookie: &str, now_s: u64) {
        let Some(session) = Session::open(cookie, &self.key, now_s) else { return };
        {
            let mut ended_sessions = lock(&self.ended_sessions);
            if ended_sessions.len() >= MAX_ENDED_SESSIONS {
                ended_sessions.pop_front();
            }
            ended_sessions.push_back(session.id.clone());
        }
        log::info!(user = session.user.as_str(); "logged out");
        match tokio::time::timeout(REGISTRY_TIMEOUT, self.registry.end_session(&session.user, &session.id)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => log::warn!(err:% = Chain(&e); "the session has ended on this node only"),
            Err(_) => log::warn!("the session has ended on this node only: the registry does not answer"),
        }
    }

    /// Returns the cookie of a new session, and its end in Unix seconds.
    pub(super) fn begin_session(&self, user: &UserDocument, now_s: u64) -> (String, u64) {
        let expires_s = now_s + LIFETIME_S;
        let password_fingerprint = fingerprint(&user.password_hash);
        let session = Session { user: user.name.clone(), expires_s, password_fingerprint, id: random_id() };
        (session.seal(&self.key), expires_s)
    }

    /// The user with this name; an error if the registry is unreachable and the user is not cached.
    async fn user(&self, name: &str) -> Result<Option<Arc<UserDocument>>, ()> {
        self.import_handover().await;
        let user_cache = lock(&self.user_cache).get(name).cloned();
        if let Some((at, user)) = &user_cache
            && at.elapsed() < USER_CACHE_TTL
        {
            return Ok(Some(Arc::clone(user)));
        }
        match tokio::time::timeout(REGISTRY_TIMEOUT, self.registry.user(name)).await {
            Ok(Ok(Some(user))) => {
                let user = Arc::new(user);
                let mut user_cache = lock(&self.user_cache);
                if user_cache.len() >= MAX_CACHED_USERS {
                    user_cache.clear();
                }
                user_cache.insert(name.to_owned(), (Instant::now(), Arc::clone(&user)));
                Ok(Some(user))
            }
            Ok(Ok(None)) => {
                lock(&self.user_cache).remove(name);
                Ok(None)
            }
            Ok(Err(_)) | Err(_) => match user_cache {
                Some((_, user)) => {
                    // Extend the cache entry, to not query the registry for every request.
                    lock(&self.user_cache).insert(name.to_owned(), (Instant::now(), Arc::clone(&user)));
                    Ok(Some(user))
                }
                None => Err(()),
            },
        }
    }

    /// Imports the user document in the data folder into the registry, and deletes the file.
    async fn import_handover(&self) {
        let Some(path) = self.handover.as_deref().filter(|path| path.exists()) else { return };
        let taken = async {
            let user: UserDocument = serde_json::from_slice(&std::fs::read(path)?).map_err(std::io::Error::other)?;
            self.registry.put_user(&user).await.map_err(std::io::Error::other)?;
            lock(&self.user_cache).remove(&user.name);
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
const DUMMY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmU$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Maximum number of concurrent hashes: each takes 19 MiB and tens of milliseconds of a core.
const MAX_CONCURRENT_HASHES: usize = 2;
/// Maximum time to wait for a hash permit.
const HASH_WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Age at which a cached user is read again: sessions end this long after a password change.
const USER_CACHE_TTL: Duration = Duration::from_secs(2);
/// Maximum time of a registry query.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for which a correct password is not hashed again.
const VERIFIED_TTL: Duration = Duration::from_secs(60);
const MAX_NAME_BYTES: usize = 64;
const MAX_PASSWORD_BYTES: usize = 256;
const MAX_CACHED_USERS: usize = 100;

#[cfg(test)]
mod tests {
    use headwater_api::documents::Rights;
    use headwater_registry::Embedded;

    use super::*;

    struct TestRegistry {
        folder: PathBuf,
        store: Store,
    }

    impl TestRegistry {
        async fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("headwater-accounts-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let store = Store::Embedded(Embedded::open(&folder).unwrap());
            store.create_user(&administrator("right")).await.unwrap();
            Self { folder, store }
        }

        fn accounts(&self) -> Accounts {
            Accounts::new(
                self.store.clone(),
                SessionKey::from_secret(b"what all nodes share"),
                Some(self.folder.clone()),
            )
        }
    }

    impl Drop for TestRegistry {
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
            ended_sessions: Vec::new(),
        }
    }

    async fn attempt(accounts: &Accounts, name: &str, password: &str) -> Result<Arc<UserDocument>, LoginError> {
        accounts.by_password(IpAddr::from([192, 0, 2, 1]), name, Secret::new(password)).await
    }

    #[tokio::test]
    async fn only_the_right_name_and_password_are_accepted() {
        let registry = TestRegistry::new("in").await;
        let accounts = registry.accounts();
        assert_eq!(attempt(&accounts, "admin", "right").await.unwrap().name, "admin");
        for (name, password) in [("admin", "wrong"), ("admin", ""), ("root", "right"), ("", ""), ("admin", DUMMY_HASH)]
        {
            assert_eq!(attempt(&accounts, name, password).await, Err(LoginError::WrongPassword), "{name} {password}");
        }
        assert_eq!(attempt(&accounts, "admin", &"x".repeat(10_000)).await, Err(LoginError::WrongPassword));
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_passwords_are_throttled_and_repeated_correct_ones_are_not() {
        let registry = TestRegistry::new("guess").await;
        let accounts = registry.accounts();
        for _ in 0..30 {
            attempt(&accounts, "admin", "right").await.unwrap();
        }
        for n in 0..8 {
            assert_eq!(attempt(&accounts, "admin", &n.to_string()).await, Err(LoginError::WrongPassword));
        }
        assert_eq!(attempt(&accounts, "admin", "8").await, Err(LoginError::TooManyAttempts));
        attempt(&accounts, "admin", "right").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn overlong_name_or_password_is_wrong_and_costs_no_attempt() {
        let registry = TestRegistry::new("long").await;
        let accounts = registry.accounts();
        for _ in 0..20 {
            for (name, password) in [(1, MAX_PASSWORD_BYTES + 1), (MAX_NAME_BYTES + 1, 1)] {
                let (name, password) = ("n".repeat(name), "p".repeat(password));
                assert_eq!(attempt(&accounts, &name, &password).await, Err(LoginError::WrongPassword));
            }
        }
        attempt(&accounts, "admin", "right").await.unwrap();
    }

    #[tokio::test]
    async fn number_of_cached_users_is_limited() {
        let registry = TestRegistry::new("cache").await;
        let accounts = registry.accounts();
        let template = administrator("right");
        for n in 0..=MAX_CACHED_USERS {
            let user = UserDocument { name: format!("user{n}"), ..template.clone() };
            registry.store.create_user(&user).await.unwrap();
            assert!(accounts.user(&user.name).await.unwrap().is_some());
        }
        assert!(lock(&accounts.user_cache).len() <= MAX_CACHED_USERS);
    }

    #[tokio::test]
    async fn sign_out_ends_its_session_on_every_node_and_no_other_one() {
        let registry = TestRegistry::new("out").await;
        let (accounts, restarted) = (registry.accounts(), registry.accounts());
        let user = attempt(&accounts, "admin", "right").await.unwrap();
        let [ended, other] = [(); 2].map(|()| accounts.begin_session(&user, 1_000).0);
        assert_ne!(ended, other);
        accounts.end_session("forged.1.x.y.z", 1_001).await;
        accounts.end_session(&ended, 1_001).await;
        for node in [&accounts, &restarted] {
            assert_eq!(node.by_session(&ended, 1_001).await, None);
            assert!(node.by_session(&other, 1_001).await.is_some());
        }
        let stored = registry.store.user("admin").await.unwrap().unwrap();
        assert_eq!(stored.ended_sessions.len(), 1);
    }

    #[tokio::test]
    async fn imported_password_ends_all_sessions() {
        let registry = TestRegistry::new("new").await;
        let (accounts, other_node) = (registry.accounts(), registry.accounts());
        let user = attempt(&accounts, "admin", "right").await.unwrap();
        let (cookie, expires_s) = accounts.begin_session(&user, 1_000);
        assert_eq!(other_node.by_session(&cookie, 1_001).await, Some((user, expires_s)));
        assert_eq!(accounts.by_session(&cookie, expires_s).await, None);

        let file = registry.folder.join(NEW_ADMINISTRATOR_FILE);
        std::fs::write(&file, serde_json::to_vec(&administrator("new")).unwrap()).unwrap();
        assert_eq!(accounts.by_session(&cookie, 1_001).await, None);
        assert!(!file.exists());
        assert_eq!(attempt(&accounts, "admin", "right").await, Err(LoginError::WrongPassword));
        attempt(&accounts, "admin", "new").await.unwrap();

        std::fs::write(&file, "no user").unwrap();
        attempt(&accounts, "admin", "new").await.unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn unknown_name_has_the_same_hash_cost_as_a_known_one() {
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(DUMMY_HASH), cost(password::hash(&Secret::new("x")).unwrap().reveal()));
        assert!(argon2::password_hash::phc::PasswordHash::new(DUMMY_HASH).is_ok());
    }
}
