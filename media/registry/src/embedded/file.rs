//! The file: its format, and how its tables are read and written.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
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
    /// Opens the file, or creates it without documents. No lease is restored yet.
    pub(super) fn open_file(path: PathBuf, timing: Timing) -> Result<Self, RegistryError> {
        // redb panics on some invariants of its file; a damaged file must be reported as an error.
        let opened = catch_unwind(AssertUnwindSafe(|| Database::create(&path)));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(e)) => return Err(open_error(path, e)),
            Err(_) => return Err(RegistryError::Corrupt { path, source: "its pages contradict each other".into() }),
        };
        let opened_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let clock = UnixClock { opened: Instant::now(), opened_ms };
        Ok(Self(Arc::new(Inner { database, path, leases: Mutex::new(Leases::new(timing)), clock })))
    }

    /// Checks the storage format, and writes it into a new file. Returns true if the file is new.
    pub(super) fn check_format(&self) -> Result<bool, RegistryError> {
        let stored = self.write(META, |meta| {
            let format = meta.get(FORMAT_KEY)?.map(|v| v.value().to_vec());
            if format.is_none() {
                meta.insert(FORMAT_KEY, FORMAT)?;
            }
            Ok(format)
        })?;
        match stored {
            Some(format) if format != FORMAT => Err(RegistryError::Version { path: self.0.path.clone() }),
            stored => Ok(stored.is_none()),
        }
    }

    pub(super) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.0.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    /// All documents of a table, in the order of their keys.
    pub(super) fn read_all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>, RegistryError> {
        let read = || -> Result<Vec<T>, Cause> {
            let transaction = self.0.database.begin_read()?;
            let rows = match transaction.open_table(table) {
                Ok(rows) => rows,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
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
        let read = || -> Result<Option<T>, Cause> {
            let transaction = self.0.database.begin_read()?;
            let rows = match transaction.open_table(table) {
                Ok(rows) => rows,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            Ok(match rows.get(key)? {
                Some(value) => Some(serde_json::from_slice(value.value())?),
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
        write().map_err(|source| RegistryError::Write { what, path, source })
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

fn open_error(path: PathBuf, error: DatabaseError) -> RegistryError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => RegistryError::Locked { path },
        DatabaseError::UpgradeRequired(_) => RegistryError::Version { path },
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() != std::io::ErrorKind::InvalidData => {
            RegistryError::Open { path, source: e.into() }
        }
        other => RegistryError::Corrupt { path, source: other.into() },
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
        "tokens" => "tokens",
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
