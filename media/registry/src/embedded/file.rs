//! The file: its format, and how its tables are read and written.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use redb::{
    CommitError, Database, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition, TableError,
    TransactionError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::leases::Leases;
use crate::error::Cause;
use crate::{Registry, RegistryError, Timing};

/// A registry in a file. Cheap to clone; dropping the last clone closes the file.
#[derive(Debug, Clone)]
pub struct Embedded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    path: PathBuf,
    leases: Mutex<Leases>,
    clock: UnixClock,
    /// When forgotten tokens were last removed, in Unix milliseconds.
    cleaned_at_ms: AtomicU64,
}

/// Unix time that never decreases while the registry is open.
#[derive(Debug)]
struct UnixClock {
    opened: Instant,
    opened_ms: u64,
}

impl UnixClock {
    fn now_ms(&self) -> u64 {
        self.opened_ms + u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX / 4)
    }
}

impl Embedded {
    /// A registry in an open database. No lease is restored yet.
    pub(super) fn new(database: Database, path: &Path, timing: Timing) -> Self {
        let opened_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let clock = UnixClock { opened: Instant::now(), opened_ms };
        let leases = Mutex::new(Leases::new(timing));
        Self(Arc::new(Inner { database, path: path.to_owned(), leases, clock, cleaned_at_ms: AtomicU64::new(0) }))
    }

    /// Checks the storage format, and writes it into a new file. Returns true if the file is new.
    /// An existing file is only read: it can be opened on a full disk.
    pub(super) fn check_format(&self) -> Result<bool, RegistryError> {
        match self.read_value(META, FORMAT_KEY, |format| Ok(format == FORMAT))? {
            Some(true) => Ok(false),
            Some(false) => Err(RegistryError::Version { path: self.0.path.clone() }),
            None => self
                .write(META, |meta| {
                    meta.insert(FORMAT_KEY, FORMAT)?;
                    Ok(())
                })
                .map(|()| true),
        }
    }

    pub(super) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.0.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    /// True at most once per interval: then the caller removes what is out of date.
    pub(super) fn is_time_to_clean(&self, now_ms: u64, interval_ms: u64) -> bool {
        let last_ms = self.0.cleaned_at_ms.load(Ordering::Relaxed);
        let swap =
            |next_ms| self.0.cleaned_at_ms.compare_exchange(last_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed);
        last_ms.saturating_add(interval_ms) <= now_ms && swap(now_ms).is_ok()
    }

    /// All documents of a table, in the order of their keys.
    pub(super) fn read_all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>, RegistryError> {
        let read = || -> Result<Vec<T>, Cause> {
            let transaction = self.0.database.begin_read()?;
            let rows = match transaction.open_table(table) {
                Ok(rows) => rows,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(e) => return Err(e.into()),
            };
            let mut documents = Vec::new();
            for row in rows.iter()? {
                let (_, value) = row?;
                documents.push(serde_json::from_slice(value.value())?);
            }
            Ok(documents)
        };
        read().map_err(|source| self.read_error(table, source))
    }

    pub(super) fn read_one<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>, RegistryError> {
        self.read_value(table, key, |value| Ok(serde_json::from_slice(value)?))
    }

    fn read_value<T>(
        &self,
        table: Table,
        key: &str,
        parse: impl Fn(&[u8]) -> Result<T, Cause>,
    ) -> Result<Option<T>, RegistryError> {
        let read = || -> Result<Option<T>, Cause> {
            let transaction = self.0.database.begin_read()?;
            let rows = match transaction.open_table(table) {
                Ok(rows) => rows,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            Ok(match rows.get(key)? {
                Some(value) => Some(parse(value.value())?),
                None => None,
            })
        };
        read().map_err(|source| self.read_error(table, source))
    }

    /// Runs one transaction on one table; nothing is written if `change` fails.
    pub(super) fn write<T>(
        &self,
        table: Table,
        change: impl FnOnce(&mut redb::Table<'_, &'static str, &'static [u8]>) -> Result<T, Cause>,
    ) -> Result<T, RegistryError> {
        let write = || -> Result<T, Cause> {
            let transaction = self.0.database.begin_write()?;
            let value = {
                let mut rows = transaction.open_table(table)?;
                change(&mut rows)?
            };
            transaction.commit()?;
            Ok(value)
        };
        let (what, path) = (table_name(table), self.0.path.clone());
        write().map_err(|source| RegistryError::Write { what, path, source: io_cause(source) })
    }

    pub(super) fn put<T: Serialize>(&self, table: Table, key: &str, document: &T) -> Result<(), RegistryError> {
        self.write(table, |rows| {
            rows.insert(key, encode(document)?.as_slice())?;
            Ok(())
        })
    }

    /// Writes a document under a new key. Returns false if the key exists.
    pub(super) fn create<T: Serialize>(&self, table: Table, key: &str, document: &T) -> Result<bool, RegistryError> {
        self.write(table, |rows| {
            let is_new = rows.get(key)?.is_none();
            if is_new {
                rows.insert(key, encode(document)?.as_slice())?;
            }
            Ok(is_new)
        })
    }

    pub(super) fn remove(&self, table: Table, key: &str) -> Result<bool, RegistryError> {
        self.write(table, |rows| Ok(rows.remove(key)?.is_some()))
    }

    fn read_error(&self, table: Table, source: Cause) -> RegistryError {
        RegistryError::Read { what: table_name(table), path: self.0.path.clone(), source }
    }
}

impl Registry for Embedded {
    async fn probe(&self) -> Result<u64, RegistryError> {
        let now_ms = self.now_ms();
        self.write(META, |meta| {
            meta.insert(PROBE_KEY, now_ms.to_string().as_bytes())?;
            Ok(())
        })?;
        Ok(now_ms)
    }
}

/// The I/O error in an error of redb, which does not show it as its source, so that callers
/// recognize a full disk; other errors are unchanged.
pub(super) fn io_cause(cause: Cause) -> Cause {
    fn of_storage(error: StorageError) -> Cause {
        match error {
            StorageError::Io(e) => e.into(),
            other => other.into(),
        }
    }
    let cause = match cause.downcast::<StorageError>() {
        Ok(e) => return of_storage(*e),
        Err(cause) => cause,
    };
    let cause = match cause.downcast::<CommitError>().map(|e| *e) {
        Ok(CommitError::Storage(e)) => return of_storage(e),
        Ok(other) => return other.into(),
        Err(cause) => cause,
    };
    let cause = match cause.downcast::<TableError>().map(|e| *e) {
        Ok(TableError::Storage(e)) => return of_storage(e),
        Ok(other) => return other.into(),
        Err(cause) => cause,
    };
    match cause.downcast::<TransactionError>().map(|e| *e) {
        Ok(TransactionError::Storage(e)) => of_storage(e),
        Ok(other) => other.into(),
        Err(cause) => cause,
    }
}

/// The stored form of a document: JSON.
pub(super) fn encode<T: Serialize>(document: &T) -> Result<Vec<u8>, Cause> {
    Ok(serde_json::to_vec(document)?)
}

/// Name of a table in error messages.
fn table_name(table: Table) -> &'static str {
    match redb::TableHandle::name(&table) {
        "apps" => "apps",
        "nodes" => "nodes",
        "users" => "users",
        "tokens" | "revoked tokens" => "tokens",
        _ => "the format",
    }
}

/// JSON documents by key.
pub(super) type Table = TableDefinition<'static, &'static str, &'static [u8]>;

/// The storage format, and the document of [`Registry::probe`].
pub(super) const META: Table = TableDefinition::new("meta");
pub(super) const FORMAT_KEY: &str = "format";
const PROBE_KEY: &str = "probe";
/// Incremented when documents are stored in a way that this version cannot read.
const FORMAT: &[u8] = b"1";
