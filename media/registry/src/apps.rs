//! Apps: namespaces of streams.

use std::future::Future;

use headwater_api::documents::AppDocument;

use crate::RegistryError;

/// The apps of a registry. A new registry contains
/// [`DEFAULT_APPS`](headwater_api::documents::DEFAULT_APPS).
pub trait Apps: Send + Sync {
    /// All apps, sorted by name.
    fn apps(&self) -> impl Future<Output = Result<Vec<AppDocument>, RegistryError>> + Send;

    /// Writes an app, if the registry has the revision that `app` has; returns the written
    /// document, whose revision is one greater. An app that does not exist has revision 0.
    ///
    /// # Errors
    /// [`RegistryError::Changed`], with the current document, if the registry has another revision.
    fn put_app(&self, app: &AppDocument) -> impl Future<Output = Result<AppDocument, RegistryError>> + Send;

    /// Removes an app. Returns false if it did not exist. Its live streams continue.
    fn remove_app(&self, name: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;
}

/// The document that a write of `app` stores.
pub(crate) fn next_revision(app: &AppDocument) -> AppDocument {
    AppDocument { revision: app.revision.saturating_add(1), ..app.clone() }
}

/// The outcome of a write whose revision was not the current one. The write has succeeded after all
/// if the current document is the one that it wrote: the answer to an earlier attempt was lost.
pub(crate) fn outcome_of_conflict(
    written: AppDocument,
    current: Option<AppDocument>,
) -> Result<AppDocument, RegistryError> {
    if current.as_ref() == Some(&written) {
        return Ok(written);
    }
    Err(RegistryError::Changed { name: written.name, current: current.map(Box::new) })
}
