//! The file: how it is opened, and how its tables are read and written.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use redb::{
    CommitError, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition,
    TableError, TransactionError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::leases::Leases;
use super::{apps, nodes};
use crate::error::Cause;
use crate::{Registry, RegistryError, Timing};

/// File name inside `data_dir`.
pub const FILE_NAME: &str = "registry.redb";

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
    /// Opens the registry of an existing data folder. Creates it, with the default apps, if there
    /// is none.
    ///
    /// # Errors
    /// If the file cannot be opened, is open in another process, is damaged, or has another format.
    pub fn open(data_dir: &Path) -> Result<Self, RegistryError> {
        Self::open_with(data_dir, Timing::default())
    }

    /// [`Embedded::open`] with other lease durations, for tests.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open_with(data_dir: &Path, timing: Timing) -> Result<Self, RegistryError> {
        let path = data_dir.join(FILE_NAME);
        // redb panics on some invariants of its file; a damaged file must be reported as an error.
        let opened = run_and_catch_panic(|| match path.try_exists() {
            Ok(false) => Self::create_file(&path, timing),
            // The file must exist: redb would take an empty one for a new one.
            _ => Self::open_file(&path, timing),
        });
        opened.unwrap_or_else(|| {
            Err(RegistryError::Corrupt { path: path.clone(), source: "its pages contradict each other".into() })
        })
    }

    /// Creates the file under another name first: a file that exists is always complete.
    fn create_file(path: &Path, timing: Timing) -> Result<Self, RegistryError> {
        let draft = path.with_extension(format!("redb.new-{}", std::process::id()));
        let open_error = |source: std::io::Error| RegistryError::Open { path: path.to_owned(), source: source.into() };
        let created = (|| {
            match std::fs::remove_file(&draft) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(open_error(e)),
                _ => {}
            }
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(open_error)?;
            let database = Database::create(&draft).map_err(|e| error_of_open(path.to_owned(), e))?;
            let registry = Self::new(database, path, timing)?;
            std::fs::rename(&draft, path).map_err(open_error)?;
            Ok(registry)
        })();
        if created.is_err() {
            // It may not exist; the cause is already known.
            let _ = std::fs::remove_file(&draft);
        }
        created
    }

    fn open_file(path: &Path, timing: Timing) -> Result<Self, RegistryError> {
        let database = Database::open(path).map_err(|e| error_of_open(path.to_owned(), e))?;
        // Files of earlier versions could be read by everyone. Another owner's file stays as it is.
        let _ = std::fs::set_permissions(path, Permissions::from_mode(0o600));
        Self::new(database, path, timing)
    }

    fn new(database: Database, path: &Path, timing: Timing) -> Result<Self, RegistryError> {
        let opened_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let clock = UnixClock { opened: Instant::now(), opened_ms };
        let leases = Mutex::new(Leases::new(timing));
        let registry = Self(Arc::new(Inner { database, path: path.to_owned(), leases, clock }));
        if registry.check_format()? {
            apps::seed(&registry)?;
        }
        nodes::restore_leases(&registry)?;
        Ok(registry)
    }

    /// Checks the storage format, and writes it into a new file. Returns true if the file is new.
    /// An existing file is only read: it can be opened on a full disk.
    fn check_format(&self) -> Result<bool, RegistryError> {
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

/// Runs `work`; `None` if it panicked. It runs on a thread of its own, whose panics are not printed:
/// the caller reports what happened in one sentence.
fn run_and_catch_panic<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    static INSTALL_HOOK: Once = Once::new();
    INSTALL_HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some(OPEN_THREAD) {
                previous(panic);
            }
        }));
    });
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(OPEN_THREAD.to_owned()).spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
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

fn error_of_open(path: PathBuf, error: DatabaseError) -> RegistryError {
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
/// Name of the thread that opens the file.
const OPEN_THREAD: &str = "registry-open";
/// Incremented when documents are stored in a way that this version cannot read.
const FORMAT: &[u8] = b"1";
