//! A connection string in a file that may change: whoever rotates the password or moves the database writes the new one there, and
//! processes that have the database open already find it when the old one does not do any more.
//!
//! The only holder of a database beside the calls that are under way: one that is replaced is closed when the last of them ends.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_api::secret::Secret;

use super::MongoDb;
use crate::{RegistryError, Timing};

/// The database as it is reached at the moment. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What says how it is reached; none if that does not change.
    file: Option<PathBuf>,
    newest: Mutex<Opened>,
    /// Held while it is opened again: calls that fail at once share that.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Opened {
    uri: Option<Secret>,
    database: MongoDb,
}

impl Source {
    /// [`MongoDb::open`] of the first line of a file, again whenever calls fail and the file holds another.
    ///
    /// # Errors
    /// As [`MongoDb::open`], and if the file holds nothing.
    pub async fn open(file: &Path, timing: Timing) -> Result<Self, RegistryError> {
        let uri = read(file)?;
        let database = MongoDb::open(&uri, timing).await?;
        Ok(Self::new(Some(file.to_owned()), Opened { uri: Some(uri), database }))
    }

    fn new(file: Option<PathBuf>, opened: Opened) -> Self {
        Self(Arc::new(Shared { file, newest: Mutex::new(opened), opening: tokio::sync::Mutex::default() }))
    }

    /// As the file said when it was looked at last. For one call: who keeps it keeps its connections.
    pub(crate) fn newest(&self) -> MongoDb {
        self.lock().database.clone()
    }

    /// Looks at the file if the call that was made of `used` failed in a way that may have to do with it. Gives what the call is worth
    /// repeating with.
    pub(crate) async fn heed<T>(&self, used: MongoDb, outcome: &Result<T, RegistryError>) -> Option<MongoDb> {
        match outcome {
            Err(RegistryError::Unreachable { .. } | RegistryError::Refused { .. }) => {
                let timing = used.0.timing;
                self.renewed(used, async |uri| MongoDb::open(&uri, timing).await).await
            }
            _ => None,
        }
    }

    async fn renewed(
        &self,
        used: MongoDb,
        open: impl AsyncFnOnce(Secret) -> Result<MongoDb, RegistryError>,
    ) -> Option<MongoDb> {
        let file = self.0.file.as_ref()?;
        let another = || Some(self.newest()).filter(|newest| !Arc::ptr_eq(&newest.0, &used.0));
        let Ok(_opening) = self.0.opening.try_lock() else {
            // Somebody does so already, and what becomes of that counts for this call too.
            drop(self.0.opening.lock().await);
            return another();
        };
        if let Some(newer) = another() {
            return Some(newer);
        }
        // One that cannot be read or used changes nothing: the next call that fails looks again.
        let uri = read(file).ok()?;
        if self.lock().uri.as_ref() == Some(&uri) {
            return None;
        }
        let database = open(uri.clone()).await.ok()?;
        *self.lock() = Opened { uri: Some(uri), database: database.clone() };
        Some(database)
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<MongoDb> for Source {
    fn from(database: MongoDb) -> Self {
        Self::new(None, Opened { uri: None, database })
    }
}

/// The first line.
fn read(file: &Path) -> Result<Secret, RegistryError> {
    let cannot = |source: Option<crate::error::Cause>| RegistryError::Setting {
        reason: format!("registry.uri_file {} holds no connection string", file.display()),
        source,
    };
    let text = std::fs::read_to_string(file).map_err(|e| cannot(Some(e.into())))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => Err(cannot(None)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    const CALLS: usize = 20;

    /// Opens nothing: drivers connect later.
    async fn database(name: &str) -> MongoDb {
        MongoDb::open(&Secret::new(format!("mongodb://127.0.0.1:9/{name}")), Timing::default()).await.unwrap()
    }

    /// As many calls as that fail at once, the file having changed; what each is repeated with, and how often it was opened.
    async fn fail_at_once(name: &str, reached: bool) -> (Vec<Option<MongoDb>>, usize) {
        let file = std::env::temp_dir().join(format!("headwater-registry-{name}-{}", std::process::id()));
        std::fs::write(&file, "mongodb://127.0.0.1:9/before\n").unwrap();
        let source = Source::open(&file, Timing::default()).await.unwrap();
        std::fs::write(&file, "mongodb://127.0.0.1:9/after\n").unwrap();
        let opened = Arc::new(AtomicUsize::new(0));
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let (source, opened) = (source.clone(), opened.clone());
            calls.spawn(async move {
                let used = source.newest();
                yield_now().await;
                let open = async |_| {
                    opened.fetch_add(1, Ordering::SeqCst);
                    // Time for all others to fail as well.
                    for _ in 0..CALLS {
                        yield_now().await;
                    }
                    let cannot = RegistryError::Setting { reason: "scripted".to_owned(), source: None };
                    if reached { Ok(database("after").await) } else { Err(cannot) }
                };
                source.renewed(used, open).await
            });
        }
        let outcomes = calls.join_all().await;
        std::fs::remove_file(&file).unwrap();
        (outcomes, opened.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn calls_that_fail_at_once_share_one_reopening_and_are_all_repeated() {
        let (outcomes, opened) = fail_at_once("shared", true).await;
        assert_eq!(opened, 1);
        let first = outcomes[0].clone().unwrap();
        assert!(outcomes.iter().all(|o| o.as_ref().is_some_and(|database| Arc::ptr_eq(&database.0, &first.0))));
    }

    #[tokio::test]
    async fn calls_that_fail_at_once_share_a_reopening_that_fails() {
        let (outcomes, opened) = fail_at_once("in-vain", false).await;
        assert_eq!((opened, outcomes.iter().flatten().count()), (1, 0));
    }

    /// Its call was under way when another reopened the database.
    #[tokio::test]
    async fn a_call_that_failed_with_the_old_database_is_repeated_with_the_new_one_although_the_file_says_nothing_new()
    {
        let file = std::env::temp_dir().join(format!("headwater-registry-late-{}", std::process::id()));
        std::fs::write(&file, "mongodb://127.0.0.1:9/before\n").unwrap();
        let source = Source::open(&file, Timing::default()).await.unwrap();
        let used = source.newest();
        std::fs::write(&file, "mongodb://127.0.0.1:9/after\n").unwrap();
        let newer = source.renewed(used.clone(), async |_| Ok(database("after").await)).await.unwrap();
        let late = source.renewed(used, async |_| panic!("opened again")).await.unwrap();
        assert!(Arc::ptr_eq(&late.0, &newer.0));
        std::fs::remove_file(&file).unwrap();
    }
}
