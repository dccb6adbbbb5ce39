//! The data folder holds everything that must survive a restart. It is created if it is missing,
//! and checked to be writable.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The data folder could not be created or written.
#[derive(Debug, thiserror::Error)]
#[error("data folder {} cannot be written (data_dir in [node] names another)", path.display())]
pub(crate) struct DataDirError {
    path: PathBuf,
    source: io::Error,
}

/// Creates the folder, readable only by its owner, and checks that it is writable.
pub(crate) fn prepare(path: &Path) -> Result<(), DataDirError> {
    let probe = path.join(".write-probe");
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| fs::write(&probe, b"headwater"))
        .and_then(|()| fs::remove_file(&probe))
        .map_err(|source| DataDirError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_that_cannot_be_created_is_named() {
        let error = prepare(Path::new("/dev/null/data")).unwrap_err();
        let sentence = headwater_api::error::Chain(&error).to_string();
        assert!(sentence.starts_with("data folder /dev/null/data cannot be written"), "{sentence}");
        assert!(sentence.ends_with("Not a directory (os error 20)"), "{sentence}");
    }
}
