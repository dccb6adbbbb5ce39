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
#[derive(Debug)]
pub(super) struct Jwks {
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
        Self { client, cached: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// True if this is the cache of this URL, with this permission.
    pub(super) fn is_of(&self, url: &str, may_be_private: bool) -> bool {
        self.client.is_for(url, may_be_private)
    }

    /// The key for a token with this `kid` and algorithm. Waits only if it is unknown or old.
    ///
    /// # Errors
    /// If there is no such key, or none could ever be fetched.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<PublicKey, AccessError> {
        let (known, is_fresh) = self.known(id, algorithm);
        if let Some(key) = known.clone().filter(|_| is_fresh) {
            return Ok(key);
        }
        let fetching = match self.fetching.try_lock() {
            Ok(fetching) => fetching,
            // Another request refreshes the keys.
            Err(_) if known.is_some() => return known.ok_or(AccessError::TokenInvalid),
            Err(_) => self.fetching.lock().await,
        };
        if self.may_fetch(id, algorithm) {
            Box::pin(self.fetch()).await;
        }
        drop(fetching);
        match self.known(id, algorithm).0.or(known) {
            Some(key) => Ok(key),
            None if self.lock().fetched_at.is_none() => Err(AccessError::JwksUnavailable),
            None => Err(AccessError::TokenInvalid),
        }
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
