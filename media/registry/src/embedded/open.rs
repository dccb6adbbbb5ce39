//! Opens the registry of a data folder, or creates it: the file, its default apps, and the leases
//! of the nodes that it lists.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Once;

use redb::{Database, DatabaseError, StorageError};

use super::{Embedded, apps, nodes};
use crate::{RegistryError, Timing};

/// File name inside `data_dir`.
pub const FILE_NAME: &str = "registry.redb";

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
            Ok(false) => create_file(&path, timing),
            // The file must exist: redb would take an empty one for a new one.
            _ => open_file(&path, timing),
        });
        opened.unwrap_or_else(|| {
            Err(RegistryError::Corrupt { path: path.clone(), source: "its pages contradict each other".into() })
        })
    }
}

/// Creates the file under another name first: a file that exists is always complete.
fn create_file(path: &Path, timing: Timing) -> Result<Embedded, RegistryError> {
    let draft = path.with_extension(format!("redb.new-{}", std::process::id()));
    let open_error = |source: std::io::Error| RegistryError::Open { path: path.to_owned(), source: source.into() };
    let created = (|| {
        match std::fs::remove_file(&draft) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(open_error(e)),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(open_error)?;
        let database = Database::create(&draft).map_err(|e| error_of_open(path.to_owned(), e))?;
        let registry = prepare(Embedded::new(database, path, timing))?;
        std::fs::rename(&draft, path).map_err(open_error)?;
        Ok(registry)
    })();
    if created.is_err() {
        // It may not exist; the cause is already known.
        let _ = std::fs::remove_file(&draft);
    }
    created
}

fn open_file(path: &Path, timing: Timing) -> Result<Embedded, RegistryError> {
    let database = Database::open(path).map_err(|e| error_of_open(path.to_owned(), e))?;
    // Files of earlier versions could be read by everyone. Another owner's file stays as it is.
    let _ = std::fs::set_permissions(path, Permissions::from_mode(0o600));
    prepare(Embedded::new(database, path, timing))
}

/// Checks the format, writes the default apps into a new file, and restores the leases.
fn prepare(registry: Embedded) -> Result<Embedded, RegistryError> {
    if registry.check_format()? {
        apps::seed(&registry)?;
    }
    nodes::restore_leases(&registry)?;
    Ok(registry)
}

/// Runs `work`; `None` if it panicked. It runs on a thread of its own, whose panics are not
/// printed: the caller reports what happened in one sentence.
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

/// Name of the thread that opens the file.
const OPEN_THREAD: &str = "registry-open";
