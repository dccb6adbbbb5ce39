//! Users in the file.

use headwater_api::documents::{MAX_ENDED_SESSIONS, UserDocument};
use redb::{ReadableTable as _, TableDefinition};

use super::Embedded;
use super::file::{Table, encode};
use crate::{Accounts, RegistryError};

impl Accounts for Embedded {
    async fn create_user(&self, user: &UserDocument) -> Result<(), RegistryError> {
        match self.create(USERS, &user.name, user)? {
            true => Ok(()),
            false => Err(RegistryError::Exists { what: "user", id: user.name.clone() }),
        }
    }

    async fn put_user(&self, user: &UserDocument) -> Result<(), RegistryError> {
        self.put(USERS, &user.name, user)
    }

    async fn user(&self, name: &str) -> Result<Option<UserDocument>, RegistryError> {
        self.read_one(USERS, name)
    }

    async fn users(&self) -> Result<Vec<UserDocument>, RegistryError> {
        self.read_all(USERS)
    }

    async fn end_session(&self, user: &str, session: &str) -> Result<bool, RegistryError> {
        self.write(USERS, |rows| {
            let mut document = match rows.get(user)? {
                Some(value) => serde_json::from_slice::<UserDocument>(value.value())?,
                None => return Ok(false),
            };
            document.ended_sessions.push(session.to_owned());
            let excess = document.ended_sessions.len().saturating_sub(MAX_ENDED_SESSIONS);
            document.ended_sessions.drain(..excess);
            rows.insert(user, encode(&document)?.as_slice())?;
            Ok(true)
        })
    }

    async fn remove_user(&self, name: &str) -> Result<bool, RegistryError> {
        self.remove(USERS, name)
    }
}

const USERS: Table = TableDefinition::new("users");
