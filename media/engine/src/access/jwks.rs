//! The keys of a JWKS URL, cached.
//!
//! ```text
//!   find --known, younger than MAX_AGE------------------> key
//!        --known, older--> fetch, else the known one ---> key
//!        --unknown--> fetch, at most every UNKNOWN_KEY_INTERVAL --> key, or the token is invalid
//! ```
//!
//! While the URL is unreachable, the known keys remain. At most one fetch at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_api::error::Chain;
use jsonwebtoken::Algorithm;
use tokio::time::Instant;

use super::error::AccessError;
use super::jwk_set::{JwkSet, PublicKey};
use super::jwks_client::JwksClient;

/// The keys of one URL.
#[derive(Debug, Clone)]
pub(super) struct Jwks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: JwksClient,
    cached: Mutex<Cached>,
    /// Held by the task that fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Cached {
    keys: Arc<JwkSet>,
    /// When the keys were fetched.
    fetched_at: Option<Instant>,
    /// When the last fetch began, whatever its outcome.
    attempted_at: Option<Instant>,
}

impl Cached {
    fn is_fresh(&self) -> bool {
        self.fetched_at.is_some_and(|at| at.elapsed() < MAX_AGE)
    }

    /// True if another fetch may begin.
    fn may_fetch(&self) -> bool {
        let interval = if self.fetched_at.is_some() { UNKNOWN_KEY_INTERVAL } else { RETRY_INTERVAL };
        self.attempted_at.is_none_or(|at| at.elapsed() >= interval)
    }
}

impl Jwks {
    /// No keys yet; the first token fetches them.
    pub(super) fn new(client: JwksClient) -> Self {
        Self(Arc::new(Inner { client, cached: Mutex::default(), fetching: tokio::sync::Mutex::default() }))
    }

    /// True if this is the cache of this URL, with this permission.
    pub(super) fn is_of(&self, url: &str, may_be_private: bool) -> bool {
        self.0.client.is_for(url, may_be_private)
    }

    /// The key for a token with this `kid` and algorithm. Waits only if it is unknown or old.
    ///
    /// # Errors
    /// If there is no such key, or none could ever be fetched.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<PublicKey, AccessError> {
        let (known, is_fresh) = self.0.known(id, algorithm);
        let is_fetching = self.0.fetching.try_lock().is_err();
        match known {
            // If the keys are old, another request refreshes them.
            Some(key) if is_fresh || is_fetching => Ok(key),
            known => self.refresh(id, algorithm).await.or(known).ok_or_else(|| self.0.why_unknown()),
        }
    }

    /// The key, after a fetch if it may begin. In a task of its own: a client that disconnects in
    /// between would otherwise end the fetch for all others.
    async fn refresh(&self, id: Option<&str>, algorithm: Algorithm) -> Option<PublicKey> {
        let (inner, id) = (Arc::clone(&self.0), id.map(str::to_owned));
        let refreshed = tokio::spawn(async move {
            let _fetching = inner.fetching.lock().await;
            if inner.may_fetch(id.as_deref(), algorithm) {
                inner.fetch().await;
            }
            inner.known(id.as_deref(), algorithm).0
        });
        refreshed.await.ok().flatten()
    }
}

impl Inner {
    fn why_unknown(&self) -> AccessError {
        let was_fetched = self.lock().fetched_at.is_some();
        if was_fetched { AccessError::TokenInvalid } else { AccessError::JwksUnavailable }
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> (Option<PublicKey>, bool) {
        let cached = self.lock();
        (cached.keys.find(id, algorithm).cloned(), cached.is_fresh())
    }

    /// True unless another request has just fetched what this one needs, or has tried to.
    fn may_fetch(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        let cached = self.lock();
        let is_known = cached.keys.find(id, algorithm).is_some();
        !(is_known && cached.is_fresh()) && cached.may_fetch()
    }

    async fn fetch(&self) {
        self.lock().attempted_at = Some(Instant::now());
        let fetched = self.client.fetch().await;
        match fetched {
            Ok(keys) => {
                log::info!(url = self.client.url(), keys = keys.len(); "keys of a JWKS URL fetched");
                let mut cached = self.lock();
                (cached.keys, cached.fetched_at) = (Arc::new(keys), Some(Instant::now()));
            }
            Err(e) => log::warn!(url = self.client.url(), err:% = Chain(&e); "could not fetch the keys of a JWKS URL"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cached> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Age at which keys are fetched again: a key that the issuer has withdrawn is accepted this long.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);
/// Minimum time between two fetches, although a token names an unknown key: anyone can make one up.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(30);
/// Minimum time between two fetches while none has succeeded.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "jwks_test.rs"]
mod tests;
