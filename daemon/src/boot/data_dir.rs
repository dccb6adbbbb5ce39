//! The data folder holds everything that must survive a restart. It is created if it is missing,
//! checked to be writable, and locked: two nodes in one folder would replace each other's files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use headwater_program::private_file::is_disk_full;

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// It could not be created or written.
    #[error("data folder {} cannot be written (data_dir in [node] names another)", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// The cause of the failure.
        source: io::Error,
    },
    /// Another daemon has locked it.
    #[error("the data folder {} is in use by another process: is a node already running with this data folder?", path.display())]
    InUse {
        /// Its path.
        path: PathBuf,
    },
}

/// The lock of a data folder. Released on drop, and by the kernel if the process is killed.
#[derive(Debug)]
#[must_use]
pub(crate) struct DataDirLock {
    _file: File,
}

/// Creates the folder, readable only by its owner, checks that it is writable, and locks it. Waits
/// up to [`LOCK_TIMEOUT`] for a daemon that was killed a moment ago.
pub(crate) async fn prepare(path: &Path) -> Result<DataDirLock, DataDirError> {
    let write_error = |source| DataDirError::Write { path: path.to_owned(), source };
    let probe = path.join(PROBE_NAME);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    match made.and_then(|()| fs::write(&probe, b"headwater")).and_then(|()| fs::remove_file(&probe)) {
        // An operator frees the disk while the node runs; until then `/readyz` reports it.
        Err(err) if is_disk_full(&err) => log::warn!(err:%; "disk of the data folder is full"),
        result => result.map_err(write_error)?,
    }
    let file = File::create(path.join(LOCK_NAME)).map_err(write_error)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(DataDirLock { _file: file }),
            Err(fs::TryLockError::WouldBlock) if started.elapsed() >= LOCK_TIMEOUT => {
                return Err(DataDirError::InUse { path: path.to_owned() });
            }
            Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL_INTERVAL).await,
            Err(fs::TryLockError::Error(source)) => return Err(write_error(source)),
        }
    }
}

/// File names inside the data folder.
const PROBE_NAME: &str = ".write-probe";
const LOCK_NAME: &str = "node.lock";

/// How long a lock may be held by another process before the folder counts as in use. The kernel
/// releases the lock of a killed daemon when the process has ended, not when it is signalled.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two attempts to take the lock.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn folder_that_cannot_be_created_is_named() {
        let error = prepare(Path::new("/dev/null/data")).await.unwrap_err();
        let sentence = headwater_api::error::Chain(&error).to_string();
        assert!(sentence.starts_with("data folder /dev/null/data cannot be written"), "{sentence}");
        assert!(sentence.ends_with("Not a directory (os error 20)"), "{sentence}");
    }

    #[tokio::test]
    async fn full_disk_does_not_keep_a_node_from_starting() {
        let folder = std::env::temp_dir().join(format!("headwaterd-full-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink("/dev/full", folder.join(PROBE_NAME)).unwrap();
        drop(prepare(&folder).await.unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn data_folder_can_be_used_by_one_node_at_a_time() {
        let folder = std::env::temp_dir().join(format!("headwaterd-data-dir-{}", std::process::id()));
        let lock = prepare(&folder).await.unwrap();
        let error = prepare(&folder).await.unwrap_err();
        assert!(matches!(&error, DataDirError::InUse { path } if *path == folder), "{error:?}");
        // The next daemon does not have to wait until the killed one has released the lock.
        let next = prepare(&folder);
        let release = async {
            tokio::time::sleep(LOCK_TIMEOUT / 2).await;
            drop(lock);
        };
        drop(tokio::join!(next, release).0.unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }
}
