//! The free space of the data folder, for `/readyz`, without waiting for a disk that hangs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_program::free_space::check_free_space;

/// Checks one folder; at most one check runs at a time.
#[derive(Debug, Clone)]
pub struct DiskCheck {
    folder: PathBuf,
    required_mb: u32,
    /// A check has not returned yet: the disk hangs, and another thread would hang too.
    is_running: Arc<AtomicBool>,
}

impl DiskCheck {
    /// Requires `required_mb` megabytes to be free in `folder`.
    pub fn new(folder: PathBuf, required_mb: u32) -> Self {
        Self { folder, required_mb, is_running: Arc::default() }
    }

    /// The result, within a second.
    pub(super) async fn run(&self) -> Result<(), String> {
        let hangs = || Err(format!("the disk of {} does not answer", self.folder.display()));
        if self.is_running.swap(true, Ordering::AcqRel) {
            return hangs();
        }
        let this = self.clone();
        let check = tokio::task::spawn_blocking(move || {
            let result = check_free_space(&this.folder, this.required_mb);
            this.is_running.store(false, Ordering::Release);
            result
        });
        match tokio::time::timeout(DISK_TIMEOUT, check).await {
            Ok(result) => result.unwrap_or_else(|e| Err(e.to_string())),
            Err(_) => hangs(),
        }
    }
}

/// For one statvfs call, which waits only if the disk hangs.
const DISK_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn check_that_has_not_returned_is_not_started_again() {
        let check = DiskCheck::new(std::env::temp_dir(), 0);
        assert_eq!(check.run().await, Ok(()));
        check.is_running.store(true, Ordering::Release);
        assert!(check.run().await.unwrap_err().ends_with("does not answer"));
    }
}
