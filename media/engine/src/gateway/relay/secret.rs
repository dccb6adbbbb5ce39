//! Reads the cluster secret from its file.

use std::path::{Path, PathBuf};

use headwater_wire::relay::{ClusterSecret, SecretError};

/// Why the secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file could not be read.
    #[error("could not read the cluster secret {}", path.display())]
    Read {
        /// Path of the secret file.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The file does not contain a valid secret.
    #[error("the cluster secret {} cannot be used", path.display())]
    Invalid {
        /// Path of the secret file.
        path: PathBuf,
        /// The rule that the secret violates.
        source: SecretError,
    },
}

/// Reads the secret in `path`; white space around it is ignored.
///
/// # Errors
/// If the file cannot be read or the secret is too short.
pub fn read_secret(path: &Path) -> Result<ClusterSecret, SecretFileError> {
    let bytes = std::fs::read(path).map_err(|source| SecretFileError::Read { path: path.to_owned(), source })?;
    ClusterSecret::new(bytes.trim_ascii()).map_err(|source| SecretFileError::Invalid { path: path.to_owned(), source })
}
