//! Reads the cluster secret from its file.

use std::path::{Path, PathBuf};

use headwater_wire::relay::{ClusterSecret, SecretError};

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file.
    #[error("could not read the cluster secret {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// What is in it.
    #[error("the cluster secret {} cannot be used", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: SecretError,
    },
}

/// The secret in `path`, without white space around it.
///
/// # Errors
/// If the file cannot be read or holds too little.
pub fn read_secret(path: &Path) -> Result<ClusterSecret, SecretFileError> {
    let bytes = std::fs::read(path).map_err(|source| SecretFileError::Read { path: path.to_owned(), source })?;
    ClusterSecret::new(bytes.trim_ascii()).map_err(|source| SecretFileError::Unfit { path: path.to_owned(), source })
}
