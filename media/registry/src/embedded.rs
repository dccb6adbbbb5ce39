//! The registry of a standalone node: one redb file in the data folder, JSON documents by key.
//!
//! One process at a time may have it open: the daemon opens it at boot and closes it before it starts the engine. Calls
//! read and write the file in place, a few milliseconds at most, so they are for starts and for rare changes, not for
//! the path of a frame. Must not know what the documents mean, but for the boot time that fences a node's document.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use headwater_api::node::{AppDocument, DEFAULT_APPS, NodeDocument};
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
use serde::de::DeserializeOwned;

use crate::error::Cause;
use crate::{Registry, RegistryError};

/// The file inside `data_dir`.
pub const FILE_NAME: &str = "registry.redb";

/// A registry in a file. Dropping it closes the file.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
    path: PathBuf,
}

impl Embedded {
    /// Opens the registry of a data folder that exists, makes it if there is none, and sees to the apps that exist from
    /// the start.
    ///
    /// # Errors
    /// If the file cannot be opened, is open elsewhere, is damaged, or was written by another format.
    pub fn open(data_dir: &Path) -> Result<Self, RegistryError> {
        let path = data_dir.join(FILE_NAME);
        // The database checks invariants of its file with panics in places; a damaged file must be a sentence.
        let opened = catch_unwind(AssertUnwindSafe(|| Database::create(&path)));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(e)) => return Err(open_error(path, e)),
            Err(_) => return Err(RegistryError::Corrupt { path, source: "its pages contradict each other".into() }),
        };
        let this = Self { database, path };
        this.seed()?;
        Ok(this)
    }

    /// Checks the format, and writes it and the first apps into a new file.
    fn seed(&self) -> Result<(), RegistryError> {
        let written = self.write(META, |meta| {
            let format = meta.get(FORMAT_KEY)?.map(|v| v.value().to_vec());
            if format.is_none() {
                meta.insert(FORMAT_KEY, FORMAT)?;
            }
            Ok(format)
        })?;
        match written {
            Some(format) if format != FORMAT => return Err(RegistryError::Version { path: self.path.clone() }),
            _ => {}
        }
        self.write(APPS, |apps| {
            for name in DEFAULT_APPS {
                if apps.get(name)?.is_none() {
                    apps.insert(name, encode(&AppDocument { name: name.to_owned() })?.as_slice())?;
                }
            }
            Ok(())
        })
    }

    fn read_all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>, RegistryError> {
        let read = || -> Result<Vec<T>, Cause> {
            let transaction = self.database.begin_read()?;
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
        read().map_err(|source| RegistryError::Read { what: what(table), path: self.path.clone(), source })
    }

    /// One transaction on one table; nothing is written if `change` fails.
    fn write<T>(
        &self,
        table: Table,
        change: impl FnOnce(&mut redb::Table<'_, &'static str, &'static [u8]>) -> Result<T, Cause>,
    ) -> Result<T, RegistryError> {
        let write = || -> Result<T, Cause> {
            let transaction = self.database.begin_write()?;
            let value = {
                let mut rows = transaction.open_table(table)?;
                change(&mut rows)?
            };
            transaction.commit()?;
            Ok(value)
        };
        write().map_err(|source| RegistryError::Write { what: what(table), path: self.path.clone(), source })
    }
}

impl Registry for Embedded {
    async fn apps(&self) -> Result<Vec<AppDocument>, RegistryError> {
        self.read_all(APPS)
    }

    async fn put_app(&self, app: &AppDocument) -> Result<(), RegistryError> {
        self.write(APPS, |apps| {
            apps.insert(app.name.as_str(), encode(app)?.as_slice())?;
            Ok(())
        })
    }

    async fn nodes(&self) -> Result<Vec<NodeDocument>, RegistryError> {
        self.read_all(NODES)
    }

    async fn put_node(&self, node: &NodeDocument) -> Result<(), RegistryError> {
        let later = self.write(NODES, |nodes| {
            let registered = match nodes.get(node.id.as_str())? {
                Some(value) => Some(serde_json::from_slice::<NodeDocument>(value.value())?.booted_at_ms),
                None => None,
            };
            let later = registered.filter(|at| *at > node.booted_at_ms);
            if later.is_none() {
                nodes.insert(node.id.as_str(), encode(node)?.as_slice())?;
            }
            Ok(later)
        })?;
        match later {
            Some(registered_ms) => {
                Err(RegistryError::Superseded { id: node.id.clone(), this_ms: node.booted_at_ms, registered_ms })
            }
            None => Ok(()),
        }
    }

    async fn remove_node(&self, id: &str) -> Result<bool, RegistryError> {
        self.write(NODES, |nodes| Ok(nodes.remove(id)?.is_some()))
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

fn encode<T: serde::Serialize>(document: &T) -> Result<Vec<u8>, Cause> {
    Ok(serde_json::to_vec(document)?)
}

fn what(table: Table) -> &'static str {
    match redb::TableHandle::name(&table) {
        "apps" => "apps",
        "nodes" => "nodes",
        _ => "the format",
    }
}

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const APPS: Table = TableDefinition::new("apps");
const NODES: Table = TableDefinition::new("nodes");
const META: Table = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
/// Raised when documents are stored in a way that this version cannot read.
const FORMAT: &[u8] = b"1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    /// A folder that lives as long as a test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("headwater-registry-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn sentence(error: &RegistryError) -> String {
        headwater_api::error::Chain(error).to_string()
    }

    #[tokio::test]
    async fn the_embedded_registry_keeps_the_contract() {
        let folder = Folder::new("contract");
        contract::check(|| Embedded::open(&folder.0).unwrap()).await;
    }

    #[test]
    fn a_second_opener_is_told_that_the_file_is_in_use() {
        let folder = Folder::new("locked");
        let _first = Embedded::open(&folder.0).unwrap();
        let error = Embedded::open(&folder.0).unwrap_err();
        assert!(matches!(error, RegistryError::Locked { .. }), "{error:?}");
        assert!(sentence(&error).contains("in use by another process"));
    }

    #[test]
    fn a_file_that_is_no_registry_is_named_and_left_alone() {
        let folder = Folder::new("garbage");
        let path = folder.0.join(FILE_NAME);
        for garbage in [&b"not a database"[..], &[0x5a; 70_000]] {
            std::fs::write(&path, garbage).unwrap();
            let error = Embedded::open(&folder.0).unwrap_err();
            assert!(matches!(error, RegistryError::Corrupt { .. }), "{error:?}");
            assert!(sentence(&error).contains(FILE_NAME));
            assert_eq!(std::fs::read(&path).unwrap(), garbage);
        }
    }

    #[test]
    fn a_registry_cut_short_is_an_error_and_never_a_panic() {
        let folder = Folder::new("short");
        let path = folder.0.join(FILE_NAME);
        drop(Embedded::open(&folder.0).unwrap());
        let whole = std::fs::read(&path).unwrap();
        for length in [1, 64, 512, 4096, 8192, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = Embedded::open(&folder.0).map(drop).unwrap_err();
            assert!(sentence(&error).contains(FILE_NAME), "{length}: {error:?}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = Embedded::open(Path::new("/nonexistent/headwater")).unwrap_err();
        assert!(matches!(error, RegistryError::Open { .. }), "{error:?}");
        assert!(sentence(&error).contains("/nonexistent/headwater/registry.redb: No such file or directory"));
    }

    #[test]
    fn another_format_is_refused() {
        let folder = Folder::new("format");
        let registry = Embedded::open(&folder.0).unwrap();
        registry
            .write(META, |meta| {
                meta.insert(FORMAT_KEY, &b"2"[..])?;
                Ok(())
            })
            .unwrap();
        drop(registry);
        assert!(matches!(Embedded::open(&folder.0), Err(RegistryError::Version { .. })));
    }
}
