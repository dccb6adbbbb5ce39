//! The registry of a standalone node: one redb file in the data folder, JSON documents by key.
//!
//! One process at a time may have it open: the engine. Leases are kept in memory, since what holds one is this process or
//! has ended with it; that a node was registered is written, so that its next life is a later one. Calls that write take the
//! file's few milliseconds. Must not know what the documents mean.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use headwater_api::StreamName;
use headwater_api::app::{AppDocument, DEFAULT_APPS};
use headwater_api::config::Role;
use headwater_api::node::{BootEpoch, Heartbeat, Life, NodeDocument, NodeRecord};
use headwater_api::recording::{RecordingDocument, RecordingQuery};
use headwater_api::stream::{Claim, StreamOffer, StreamRecord};
use headwater_api::token::{Grant, TokenDocument};
use headwater_api::user::UserDocument;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Cause;
use crate::leases::Leases;
use crate::{Peers, Registry, RegistryError, Timing, Wish};

/// The file inside `data_dir`.
pub const FILE_NAME: &str = "registry.redb";

/// A registry in a file. Cheap to clone; the last clone dropped closes the file.
#[derive(Debug, Clone)]
pub struct Embedded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    path: PathBuf,
    leases: Mutex<Leases>,
    clock: Clock,
}

/// Unix time that never steps back while the store is open.
#[derive(Debug)]
struct Clock {
    opened: Instant,
    opened_ms: u64,
}

impl Clock {
    fn now_ms(&self) -> u64 {
        self.opened_ms + u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX / 4)
    }
}

/// What is written of a node.
#[derive(Debug, Serialize, Deserialize)]
struct Registered {
    node: NodeDocument,
    epoch: BootEpoch,
    at_ms: u64,
}

/// What is written of a token.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    token: TokenDocument,
    used: bool,
}

impl Embedded {
    /// Opens the registry of a data folder that exists, makes it if there is none, and sees to the apps that exist from
    /// the start.
    ///
    /// # Errors
    /// If the file cannot be opened, is open elsewhere, is damaged, or was written by another format.
    pub fn open(data_dir: &Path) -> Result<Self, RegistryError> {
        Self::open_with(data_dir, Timing::default())
    }

    /// [`Embedded::open`] with leases of another length, for tests.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open_with(data_dir: &Path, timing: Timing) -> Result<Self, RegistryError> {
        let path = data_dir.join(FILE_NAME);
        // The database checks invariants of its file with panics in places; a damaged file must be a sentence.
        let opened = catch_unwind(AssertUnwindSafe(|| Database::create(&path)));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(e)) => return Err(open_error(path, e)),
            Err(_) => return Err(RegistryError::Corrupt { path, source: "its pages contradict each other".into() }),
        };
        let opened_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let clock = Clock { opened: Instant::now(), opened_ms };
        let this = Self(Arc::new(Inner { database, path, leases: Mutex::new(Leases::new(timing)), clock }));
        this.seed()?;
        for Registered { node, epoch, at_ms } in this.read_all(NODES)? {
            this.leases().restore(node, epoch, at_ms);
        }
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
            Some(format) if format != FORMAT => return Err(RegistryError::Version { path: self.0.path.clone() }),
            Some(_) => return Ok(()),
            None => {}
        }
        self.write(APPS, |apps| {
            for name in DEFAULT_APPS {
                if apps.get(name)?.is_none() {
                    apps.insert(name, encode(&AppDocument::open(name))?.as_slice())?;
                }
            }
            Ok(())
        })
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.0.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    fn read_all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<T>, RegistryError> {
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
        read().map_err(|source| RegistryError::Read { what: what(table), path: self.0.path.clone(), source })
    }

    /// One transaction on one table; nothing is written if `change` fails.
    fn write<T>(
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
        write().map_err(|source| RegistryError::Write { what: what(table), path: self.0.path.clone(), source })
    }

    fn read_one<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>, RegistryError> {
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
        read().map_err(|source| RegistryError::Read { what: what(table), path: self.0.path.clone(), source })
    }

    fn put<T: Serialize>(&self, table: Table, key: &str, document: &T) -> Result<(), RegistryError> {
        self.write(table, |rows| {
            rows.insert(key, encode(document)?.as_slice())?;
            Ok(())
        })
    }

    /// Writes a document under a key that must be free; false if it is not.
    fn create<T: Serialize>(&self, table: Table, key: &str, document: &T) -> Result<bool, RegistryError> {
        self.write(table, |rows| {
            let free = rows.get(key)?.is_none();
            if free {
                rows.insert(key, encode(document)?.as_slice())?;
            }
            Ok(free)
        })
    }

    fn remove(&self, table: Table, key: &str) -> Result<bool, RegistryError> {
        self.write(table, |rows| Ok(rows.remove(key)?.is_some()))
    }
}

impl Registry for Embedded {
    async fn register(&self, node: &NodeDocument, resumes: Option<BootEpoch>) -> Result<Life, RegistryError> {
        let at_ms = self.now_ms();
        let life = self.leases().register(at_ms, node, resumes)?;
        self.put(NODES, &life.node, &Registered { node: node.clone(), epoch: life.epoch, at_ms })?;
        Ok(life)
    }

    async fn heartbeat(&self, life: &Life, heartbeat: &Heartbeat) -> Result<Wish, RegistryError> {
        self.leases().heartbeat(self.now_ms(), life, heartbeat)
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, RegistryError> {
        Ok(self.leases().nodes(self.now_ms()))
    }

    async fn peers(&self, which: Peers<'_>) -> Result<Vec<NodeRecord>, RegistryError> {
        let wanted = |record: &NodeRecord| match which {
            Peers::These(ids) => ids.contains(&record.node.id),
            Peers::EdgesOf(group) => record.node.role == Role::Edge && record.node.group == group,
        };
        let mut found: Vec<_> = self.leases().nodes(self.now_ms()).into_iter().filter(wanted).collect();
        found.iter_mut().for_each(|record| record.heartbeat.watched.clear());
        Ok(found)
    }

    async fn node(&self, id: &str) -> Result<Option<NodeRecord>, RegistryError> {
        Ok(self.leases().node(self.now_ms(), id))
    }

    async fn remove_node(&self, id: &str) -> Result<bool, RegistryError> {
        self.remove(NODES, id)?;
        Ok(self.leases().remove_node(id))
    }

    async fn ask_to_drain(&self, life: &Life) -> Result<bool, RegistryError> {
        Ok(self.leases().ask_to_drain(life))
    }

    async fn leave(&self, life: &Life) -> Result<bool, RegistryError> {
        let left = self.leases().leave(life);
        if left {
            self.remove(NODES, &life.node)?;
        }
        Ok(left)
    }

    async fn claim(
        &self,
        owner: &Life,
        name: &StreamName,
        offer: &StreamOffer,
        resumes: Option<u64>,
    ) -> Result<Claim, RegistryError> {
        self.leases().claim(self.now_ms(), owner, name, offer, resumes)
    }

    async fn renew(&self, owner: &Life, held: &[Claim]) -> Result<Vec<StreamName>, RegistryError> {
        Ok(self.leases().renew(self.now_ms(), owner, held))
    }

    async fn release(&self, claim: &Claim) -> Result<bool, RegistryError> {
        Ok(self.leases().release(self.now_ms(), claim))
    }

    async fn release_all(&self, owner: &Life) -> Result<u64, RegistryError> {
        Ok(self.leases().release_all(self.now_ms(), owner))
    }

    async fn stream(&self, name: &StreamName) -> Result<Option<StreamRecord>, RegistryError> {
        Ok(self.leases().stream(self.now_ms(), name))
    }

    async fn streams(&self) -> Result<Vec<StreamRecord>, RegistryError> {
        Ok(self.leases().streams(self.now_ms()))
    }

    async fn apps(&self) -> Result<Vec<AppDocument>, RegistryError> {
        self.read_all(APPS)
    }

    async fn put_app(&self, app: &AppDocument) -> Result<(), RegistryError> {
        self.put(APPS, &app.name, app)
    }

    async fn remove_app(&self, name: &str) -> Result<bool, RegistryError> {
        self.remove(APPS, name)
    }

    async fn put_recording(&self, recording: &RecordingDocument) -> Result<(), RegistryError> {
        self.put(RECORDINGS, &recording.id, recording)
    }

    async fn recording(&self, id: &str) -> Result<Option<RecordingDocument>, RegistryError> {
        self.read_one(RECORDINGS, id)
    }

    async fn recordings(&self, query: &RecordingQuery) -> Result<Vec<RecordingDocument>, RegistryError> {
        let mut found: Vec<RecordingDocument> = self.read_all(RECORDINGS)?;
        found.retain(|r| {
            query.app.as_deref().is_none_or(|app| app == r.stream.app())
                && query.stream.as_ref().is_none_or(|name| *name == r.stream)
        });
        found.sort_by(|a, b| b.started_at_ms.cmp(&a.started_at_ms).then_with(|| a.id.cmp(&b.id)));
        Ok(found.into_iter().skip(query.offset).take(query.limit).collect())
    }

    async fn remove_recording(&self, id: &str) -> Result<bool, RegistryError> {
        self.remove(RECORDINGS, id)
    }

    async fn create_user(&self, user: &UserDocument) -> Result<(), RegistryError> {
        match self.create(USERS, &user.name, user)? {
            true => Ok(()),
            false => Err(RegistryError::Exists { what: "user", id: user.name.clone() }),
        }
    }

    async fn put_user(&self, user: &UserDocument) -> Result<(), RegistryError> {
        self.put(USERS, &user.name, user)
    }

    async fn user(&self, name: &str) -> Result<Option<UserDocument>, RegistryError> {
        self.read_one(USERS, name)
    }

    async fn users(&self) -> Result<Vec<UserDocument>, RegistryError> {
        self.read_all(USERS)
    }

    async fn remove_user(&self, name: &str) -> Result<bool, RegistryError> {
        self.remove(USERS, name)
    }

    async fn create_token(&self, token: &TokenDocument) -> Result<(), RegistryError> {
        let now_ms = self.now_ms();
        let created = self.write(TOKENS, |rows| {
            rows.retain(|_, value| {
                serde_json::from_slice::<Token>(value).is_ok_and(|t| now_ms < t.token.expires_at_ms)
            })?;
            let free = rows.get(token.digest.as_str())?.is_none();
            if free {
                let row = Token { token: token.clone(), used: false };
                rows.insert(token.digest.as_str(), encode(&row)?.as_slice())?;
            }
            Ok(free)
        })?;
        match created {
            true => Ok(()),
            false => Err(RegistryError::Exists { what: "token", id: token.digest.clone() }),
        }
    }

    async fn consume_token(&self, digest: &str, stream: &StreamName, grants: Grant) -> Result<bool, RegistryError> {
        // Most callers show something that is no token: that must not cost a write.
        if self.read_one::<Token>(TOKENS, digest)?.is_none() {
            return Ok(false);
        }
        let now_ms = self.now_ms();
        self.write(TOKENS, |rows| {
            let row = match rows.get(digest)? {
                Some(value) => serde_json::from_slice::<Token>(value.value())?,
                None => return Ok(false),
            };
            let Token { token, used } = row;
            let good = !used && token.stream == *stream && token.grants == grants && now_ms < token.expires_at_ms;
            if good {
                rows.insert(digest, encode(&Token { token, used: true })?.as_slice())?;
            }
            Ok(good)
        })
    }

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

fn encode<T: serde::Serialize>(document: &T) -> Result<Vec<u8>, Cause> {
    Ok(serde_json::to_vec(document)?)
}

fn what(table: Table) -> &'static str {
    match redb::TableHandle::name(&table) {
        "apps" => "apps",
        "nodes" => "nodes",
        "recordings" => "recordings",
        "users" => "users",
        "tokens" => "tokens",
        _ => "the format",
    }
}

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const APPS: Table = TableDefinition::new("apps");
const NODES: Table = TableDefinition::new("nodes");
const RECORDINGS: Table = TableDefinition::new("recordings");
const USERS: Table = TableDefinition::new("users");
const TOKENS: Table = TableDefinition::new("tokens");
const META: Table = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const PROBE_KEY: &str = "probe";
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

    #[tokio::test(flavor = "multi_thread")]
    async fn the_embedded_registry_keeps_the_contract() {
        let folder = Folder::new("contract");
        contract::check(async |timing| Embedded::open_with(&folder.0, timing).unwrap()).await;
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
                meta.insert(FORMAT_KEY, &b"0"[..])?;
                Ok(())
            })
            .unwrap();
        drop(registry);
        assert!(matches!(Embedded::open(&folder.0), Err(RegistryError::Version { .. })));
    }
}
