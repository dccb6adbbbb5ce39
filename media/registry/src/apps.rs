//! Apps: namespaces of streams.

use std::future::Future;

use headwater_api::documents::AppDocument;

use crate::RegistryError;

/// The apps of a registry. A new registry contains
/// [`DEFAULT_APPS`](headwater_api::documents::DEFAULT_APPS).
pub trait Apps: Send + Sync {
    /// All apps, sorted by name.
    fn apps(&self) -> impl Future<Output = Result<Vec<AppDocument>, RegistryError>> + Send;

    /// Writes an app; replaces one of the same name.
    fn put_app(&self, app: &AppDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Removes an app. Returns false if it did not exist. Its live streams continue.
    fn remove_app(&self, name: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;
}
