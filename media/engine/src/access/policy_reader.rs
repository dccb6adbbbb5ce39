//! Reads the policies from the registry: at the start, and then every few seconds, so that a change
//! is in force on every node within five seconds.
//!
//! While the registry is unreachable, the node keeps the policies that it has. At a start they come
//! from the copy in the data folder; without one, nobody may publish or play.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use headwater_api::error::Chain;
use headwater_registry::{Apps as _, RegistryError, Store, Tokens as _};
use tokio::sync::Notify;

use super::policy_file::StoredPolicies;

/// Reads the policies.
#[derive(Debug)]
pub struct PolicyReader {
    registry: Store,
    /// Where the copy is kept; `None` if the registry is a file of this node.
    data_dir: Option<PathBuf>,
    /// What was read last; `None` until something was.
    stored: Option<StoredPolicies>,
    /// Unix time by the registry's clock: earlier revocations have been read.
    revoked_since_ms: u64,
    /// When all revocations were last read.
    read_all_at: Option<Instant>,
    /// True if the last attempt has failed.
    is_unreachable: bool,
}

impl PolicyReader {
    /// Reads from this registry. Performs no I/O.
    pub fn new(registry: Store, data_dir: PathBuf) -> Self {
        let data_dir = matches!(registry, Store::MongoDb(_)).then_some(data_dir);
        Self { registry, data_dir, stored: None, revoked_since_ms: 0, read_all_at: None, is_unreachable: false }
    }

    /// Reads the policies at the start. If a shared registry does not answer within
    /// `START_TIMEOUT`, reads the copy; `None` if there is none.
    ///
    /// # Errors
    /// If the embedded registry cannot be read.
    pub(super) async fn read_at_start(&mut self, now_ms: u64) -> Result<Option<&StoredPolicies>, RegistryError> {
        let reason = match tokio::time::timeout(START_TIMEOUT, self.read(now_ms)).await {
            Ok(Ok(read)) => {
                self.stored = read.or(self.stored.take());
                return Ok(self.stored.as_ref());
            }
            Ok(Err(e)) if self.data_dir.is_none() => return Err(e),
            Ok(Err(e)) => Chain(&e).to_string(),
            Err(_) => format!("no answer within {} ms", START_TIMEOUT.as_millis()),
        };
        self.is_unreachable = true;
        let Some(data_dir) = &self.data_dir else { return Ok(None) };
        match StoredPolicies::read(data_dir) {
            Ok(stored) => {
                log::warn!(err = reason.as_str(); "could not read the apps from the registry, using the last ones");
                Ok(Some(&*self.stored.insert(stored)))
            }
            Err(e) => {
                log::error!(
                    err = reason.as_str(), copy:% = e;
                    "could not read the apps from the registry and has no copy, refusing publishers and viewers"
                );
                Ok(None)
            }
        }
    }

    /// Waits until it is time, or for `reload`, and reads the policies; returns them if they have
    /// changed.
    pub(super) async fn next_change(&mut self, reload: &Notify, now_ms: impl Fn() -> u64) -> &StoredPolicies {
        loop {
            let jitter = READ_JITTER.mul_f64(rand::random_range(0.0..1.0));
            // The error means that nobody has asked for it earlier.
            let _ = tokio::time::timeout(READ_INTERVAL - jitter, reload.notified()).await;
            let outcome = tokio::time::timeout(READ_TIMEOUT, self.read(now_ms())).await;
            match outcome {
                Ok(Ok(changed)) => {
                    self.log_reachable();
                    if let Some(stored) = changed {
                        return self.stored.insert(stored);
                    }
                }
                Ok(Err(e)) => self.log_unreachable(&Chain(&e).to_string()),
                Err(_) => self.log_unreachable(&format!("no answer within {} ms", READ_TIMEOUT.as_millis())),
            }
        }
    }

    /// Reads the policies; returns them if they differ from the last ones.
    async fn read(&mut self, now_ms: u64) -> Result<Option<StoredPolicies>, RegistryError> {
        let reads_all = self.read_all_at.is_none_or(|at| at.elapsed() >= READ_ALL_INTERVAL);
        let since_ms = if reads_all { 0 } else { self.revoked_since_ms.saturating_sub(VISIBILITY_MS) };
        let (apps, revocations) = tokio::try_join!(self.registry.apps(), self.registry.revocations(since_ms))?;
        let revoked = self.stored.as_ref().map(|stored| stored.revoked.clone()).unwrap_or_default();
        let mut stored = StoredPolicies { apps, revoked };
        stored.revoke(revocations.tokens, now_ms);
        if reads_all {
            self.read_all_at = Some(Instant::now());
        }
        self.revoked_since_ms = revocations.at_ms;
        if self.stored.as_ref() == Some(&stored) {
            return Ok(None);
        }
        Ok(Some(stored))
    }

    /// Writes what was read last to the data folder. After it is in force: a slow disk must not
    /// delay a revocation.
    pub(super) async fn keep_copy(&self) {
        let (Some(data_dir), Some(stored)) = (self.data_dir.clone(), self.stored.clone()) else { return };
        let written = tokio::task::spawn_blocking(move || stored.write(&data_dir)).await;
        if let Ok(Err(e)) = written {
            log::warn!(err:% = Chain(&e); "could not keep a copy of the apps");
        }
    }

    fn log_reachable(&mut self) {
        if std::mem::take(&mut self.is_unreachable) {
            log::info!("apps read from the registry");
        }
    }

    fn log_unreachable(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.is_unreachable, true) {
            log::warn!(err = reason; "could not read the apps from the registry, using the last ones");
        }
    }
}

/// Maximum time that a start waits for a shared registry.
const START_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time between two reads, without the time that a read takes.
const READ_INTERVAL: Duration = Duration::from_secs(3);
/// Reads of the nodes of a cluster are spread over this time.
const READ_JITTER: Duration = Duration::from_secs(1);
/// Maximum time of a read. A change that one read has just missed is in force after the interval
/// and two reads: less than five seconds.
const READ_TIMEOUT: Duration = Duration::from_millis(900);
/// Maximum time between two reads of all revocations: the registry's clock may have gone backwards.
const READ_ALL_INTERVAL: Duration = Duration::from_secs(60);
/// A revocation becomes visible at most this long after its time, in milliseconds.
const VISIBILITY_MS: u64 = 60_000;
