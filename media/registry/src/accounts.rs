//! Accounts: the users of a registry.

use std::future::Future;

use headwater_api::documents::UserDocument;

use crate::RegistryError;

/// The users of a registry.
pub trait Accounts: Send + Sync {
    /// Writes a new user.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] if there is a user of this name.
    fn create_user(&self, user: &UserDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Writes a user; replaces one of the same name.
    fn put_user(&self, user: &UserDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// The user of this name.
    fn user(&self, name: &str) -> impl Future<Output = Result<Option<UserDocument>, RegistryError>> + Send;

    /// All users, sorted by name.
    fn users(&self) -> impl Future<Output = Result<Vec<UserDocument>, RegistryError>> + Send;

    /// Adds a session to the ended ones of a user, also while others change the user. Returns false
    /// if the user does not exist.
    fn end_session(&self, user: &str, session: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Removes a user. Returns false if it did not exist.
    fn remove_user(&self, name: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;
}
