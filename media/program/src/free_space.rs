//! Free space of a folder, for `/readyz`. A statvfs call, which does not wait for a disk.

use std::path::Path;

/// Detects a full disk before the registry fails. `required_mb` is in units of 1,000,000 bytes.
///
/// # Errors
/// One sentence, if less is free or the folder cannot be read.
pub fn check_free_space(folder: &Path, required_mb: u32) -> Result<(), String> {
    let found = nix::sys::statvfs::statvfs(folder)
        .map_err(|e| format!("could not read the free space of {}: {e}", folder.display()))?;
    let free_mb = found.blocks_available() * found.fragment_size() / 1_000_000;
    if free_mb >= u64::from(required_mb) {
        return Ok(());
    }
    Err(format!("{free_mb} MB are free in {}; {required_mb} MB are required", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_and_missing_folder_are_reported_and_enough_space_passes() {
        let folder = std::env::temp_dir();
        assert_eq!(check_free_space(&folder, 0), Ok(()));
        let full = check_free_space(&folder, u32::MAX).unwrap_err();
        assert!(full.ends_with("4294967295 MB are required"), "{full}");
        let missing = check_free_space(Path::new("/nonexistent"), 0).unwrap_err();
        assert!(missing.starts_with("could not read the free space of /nonexistent"), "{missing}");
    }
}
