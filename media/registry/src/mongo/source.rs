//! A connection string in a file that may change: whoever rotates the password or moves the database writes the new one there, and
//! processes that have the database open already find it when the old one does not do any more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use headwater_api::secret::Secret;

use super::MongoDb;
use crate::{RegistryError, Timing};

/// Where the string comes from, and what it led to last.
#[derive(Debug)]
pub(super) struct Source {
    file: PathBuf,
    newest: Mutex<(Secret, MongoDb)>,
}

impl MongoDb {
    /// [`MongoDb::open`] of the first line of a file, again whenever calls fail and the file holds another.
    ///
    /// # Errors
    /// As [`MongoDb::open`], and if the file holds nothing.
    pub async fn open_file(file: &Path, timing: Timing) -> Result<Self, RegistryError> {
        let uri = read(file)?;
        let opened = Self::open(&uri, timing).await?;
        let newest = Mutex::new((uri, opened.clone()));
        Ok(Self(opened.0, Some(Arc::new(Source { file: file.to_owned(), newest }))))
    }

    /// As the file said when it was looked at last.
    pub(crate) fn newest(&self) -> Self {
        match &self.1 {
            Some(source) => source.newest.lock().unwrap_or_else(PoisonError::into_inner).1.clone(),
            None => self.clone(),
        }
    }

    /// Looks at the file if a call failed in a way that may have to do with it. True if the call is worth repeating with what is the
    /// newest now.
    pub(crate) async fn heed<T>(&self, outcome: &Result<T, RegistryError>) -> bool {
        let (Some(source), Err(RegistryError::Unreachable { .. } | RegistryError::Refused { .. })) = (&self.1, outcome)
        else {
            return false;
        };
        // One that cannot be read or used changes nothing: the next call that fails looks again.
        let Ok(uri) = read(&source.file) else { return false };
        if source.newest.lock().unwrap_or_else(PoisonError::into_inner).0 == uri {
            return false;
        }
        let Ok(opened) = Self::open(&uri, self.0.timing).await else { return false };
        *source.newest.lock().unwrap_or_else(PoisonError::into_inner) = (uri, opened);
        true
    }
}

/// The first line.
fn read(file: &Path) -> Result<Secret, RegistryError> {
    let cannot = |source: Option<crate::error::Cause>| RegistryError::Setting {
        reason: format!("registry.uri_file {} holds no connection string", file.display()),
        source,
    };
    let text = std::fs::read_to_string(file).map_err(|e| cannot(Some(e.into())))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => Err(cannot(None)),
    }
}
