//! The documents that outlive a process: which apps exist and which nodes there are.
//!
//! One trait, [`Registry`], so that whoever asks need not know where documents are kept; today there is one store behind
//! it, [`Embedded`], a file for one standalone node. RULE: the only room that names a database. It must not know what
//! its documents are used for.
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
mod contract;
mod embedded;
mod error;

use std::future::Future;

use headwater_api::node::{AppDocument, NodeDocument};

pub use embedded::{Embedded, FILE_NAME};
pub use error::RegistryError;

/// A store of documents. Each call is one transaction: it happens whole, or not at all and gives an error.
///
/// Futures rather than plain results because a store may be across the network; the caller waits.
pub trait Registry: Send + Sync {
    /// All apps, sorted by name.
    fn apps(&self) -> impl Future<Output = Result<Vec<AppDocument>, RegistryError>> + Send;

    /// Writes an app; one of the same name is replaced.
    fn put_app(&self, app: &AppDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// All nodes, sorted by id.
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeDocument>, RegistryError>> + Send;

    /// Writes a node; the document of an earlier boot of the same id is replaced.
    ///
    /// # Errors
    /// [`RegistryError::Superseded`] if a later boot of this node has registered already.
    fn put_node(&self, node: &NodeDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Removes a node, and says if it was there.
    fn remove_node(&self, id: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;
}
