//! A connection string in a file that may change: an operator who rotates the password or moves the
//! database writes the new string there, and processes that have the database open read it once
//! calls fail.
//!
//! Apart from calls in progress, this is the only owner of the database. A replaced database is
//! closed when the last call on it ends.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_api::secret::Secret;

use super::MongoDb;
use crate::error::Cause;
use crate::{RegistryError, Timing};

/// A MongoDB that is opened again when its connection string changes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReloadableMongoDb(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The file with the connection string; `None` if the string does not change.
    file: Option<PathBuf>,
    current: Mutex<OpenDatabase>,
    /// Locked while the database is opened again: calls that fail together share one reopening.
    reopening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct OpenDatabase {
    uri: Option<Secret>,
    database: MongoDb,
}

impl ReloadableMongoDb {
    /// [`MongoDb::open`] with the first line of a file. The file is read again when calls fail.
    ///
    /// # Errors
    /// As [`MongoDb::open`], and if the file contains no connection string.
    pub async fn open(file: &Path, timing: Timing) -> Result<Self, RegistryError> {
        let uri = read_uri(file)?;
        let database = MongoDb::open(&uri, timing).await?;
        Ok(Self::new(Some(file.to_owned()), OpenDatabase { uri: Some(uri), database }))
    }

    fn new(file: Option<PathBuf>, current: OpenDatabase) -> Self {
        Self(Arc::new(Shared { file, current: Mutex::new(current), reopening: tokio::sync::Mutex::default() }))
    }

    /// The database that is open now, for one call: keeping it keeps its connections open.
    pub(crate) fn current(&self) -> MongoDb {
        self.lock().database.clone()
    }

    /// Reads the file if the call on `used` failed in a way that a new connection string may fix.
    /// Returns the database to repeat the call on, if it was opened again.
    pub(crate) async fn reopen_if_changed<T>(
        &self,
        used: MongoDb,
        outcome: &Result<T, RegistryError>,
    ) -> Option<MongoDb> {
        match outcome {
            Err(RegistryError::Unreachable { .. } | RegistryError::Refused { .. }) => {
                let timing = *used.timing();
                self.reopen(used, async |uri| MongoDb::open(&uri, timing).await).await
            }
            _ => None,
        }
    }

    async fn reopen(
        &self,
        used: MongoDb,
        open: impl AsyncFnOnce(Secret) -> Result<MongoDb, RegistryError>,
    ) -> Option<MongoDb> {
        let file = self.0.file.as_ref()?;
        let replacement = || Some(self.current()).filter(|current| !current.is_same(&used));
        let Ok(_reopening) = self.0.reopening.try_lock() else {
            // Another call is reopening the database; this call shares the result.
            drop(self.0.reopening.lock().await);
            return replacement();
        };
        if let Some(current) = replacement() {
            return Some(current);
        }
        // An unreadable or invalid file changes nothing: the next call that fails reads it again.
        let uri = read_uri(file).ok()?;
        if self.lock().uri.as_ref() == Some(&uri) {
            return None;
        }
        let database = open(uri.clone()).await.ok()?;
        *self.lock() = OpenDatabase { uri: Some(uri), database: database.clone() };
        Some(database)
    }

    fn lock(&self) -> MutexGuard<'_, OpenDatabase> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<MongoDb> for ReloadableMongoDb {
    fn from(database: MongoDb) -> Self {
        Self::new(None, OpenDatabase { uri: None, database })
    }
}

/// The first line of the file.
fn read_uri(file: &Path) -> Result<Secret, RegistryError> {
    let error = |source: Option<Cause>| RegistryError::Setting {
        reason: format!("registry.uri_file {} holds no connection string", file.display()),
        source,
    };
    let text = std::fs::read_to_string(file).map_err(|e| error(Some(e.into())))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => Err(error(None)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    const CALLS: usize = 20;

    /// Sends nothing: the driver connects when the database is used.
    async fn database(name: &str) -> MongoDb {
        MongoDb::open(&Secret::new(format!("mongodb://127.0.0.1:9/{name}")), Timing::default()).await.unwrap()
    }

    /// Lets [`CALLS`] calls fail together after the file has changed. Returns the database that
    /// each is repeated on, and how often the database was opened.
    async fn fail_together(name: &str, can_open: bool) -> (Vec<Option<MongoDb>>, usize) {
        let file = std::env::temp_dir().join(format!("headwater-registry-{name}-{}", std::process::id()));
        std::fs::write(&file, "mongodb://127.0.0.1:9/before\n").unwrap();
        let mongodb = ReloadableMongoDb::open(&file, Timing::default()).await.unwrap();
        std::fs::write(&file, "mongodb://127.0.0.1:9/after\n").unwrap();
        let opened = Arc::new(AtomicUsize::new(0));
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let (mongodb, opened) = (mongodb.clone(), opened.clone());
            calls.spawn(async move {
                let used = mongodb.current();
                yield_now().await;
                let open = async |_| {
                    opened.fetch_add(1, Ordering::SeqCst);
                    // Enough turns for all other calls to fail as well.
                    for _ in 0..CALLS {
                        yield_now().await;
                    }
                    let error = RegistryError::Setting { reason: "scripted".to_owned(), source: None };
                    if can_open { Ok(database("after").await) } else { Err(error) }
                };
                mongodb.reopen(used, open).await
            });
        }
        let outcomes = calls.join_all().await;
        std::fs::remove_file(&file).unwrap();
        (outcomes, opened.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn calls_that_fail_together_share_one_reopening_and_are_all_repeated() {
        let (outcomes, opened) = fail_together("shared", true).await;
        assert_eq!(opened, 1);
        let first = outcomes[0].clone().unwrap();
        assert!(outcomes.iter().all(|o| o.as_ref().is_some_and(|database| database.is_same(&first))));
    }

    #[tokio::test]
    async fn calls_that_fail_together_share_a_reopening_that_fails() {
        let (outcomes, opened) = fail_together("in-vain", false).await;
        assert_eq!((opened, outcomes.iter().flatten().count()), (1, 0));
    }

    /// The call was in progress while another call reopened the database.
    #[tokio::test]
    async fn call_that_fails_on_a_replaced_database_is_repeated_on_the_current_one() {
        let file = std::env::temp_dir().join(format!("headwater-registry-late-{}", std::process::id()));
        std::fs::write(&file, "mongodb://127.0.0.1:9/before\n").unwrap();
        let mongodb = ReloadableMongoDb::open(&file, Timing::default()).await.unwrap();
        let used = mongodb.current();
        std::fs::write(&file, "mongodb://127.0.0.1:9/after\n").unwrap();
        let current = mongodb.reopen(used.clone(), async |_| Ok(database("after").await)).await.unwrap();
        let late = mongodb.reopen(used, async |_| panic!("opened again")).await.unwrap();
        assert!(late.is_same(&current));
        std::fs::remove_file(&file).unwrap();
    }
}
