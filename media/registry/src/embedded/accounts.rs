//! Users and tokens in the file.

use headwater_api::StreamName;
use headwater_api::documents::{Grant, MAX_ENDED_SESSIONS, TokenDocument, UserDocument};
use redb::{ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use super::Embedded;
use super::file::{Table, encode};
use crate::{Accounts, RegistryError};

/// The stored form of a token.
#[derive(Debug, Serialize, Deserialize)]
struct StoredToken {
    token: TokenDocument,
    used: bool,
}

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

    async fn create_token(&self, token: &TokenDocument) -> Result<(), RegistryError> {
        let now_ms = self.now_ms();
        let created = self.write(TOKENS, |rows| {
            // Expired tokens are removed here; nothing else would remove them.
            rows.retain(|_, value| {
                serde_json::from_slice::<StoredToken>(value).is_ok_and(|t| now_ms < t.token.expires_at_ms)
            })?;
            let is_new = rows.get(token.digest.as_str())?.is_none();
            if is_new {
                let row = StoredToken { token: token.clone(), used: false };
                rows.insert(token.digest.as_str(), encode(&row)?.as_slice())?;
            }
            Ok(is_new)
        })?;
        match created {
            true => Ok(()),
            false => Err(RegistryError::Exists { what: "token", id: token.digest.clone() }),
        }
    }

    async fn consume_token(&self, digest: &str, stream: &StreamName, grants: Grant) -> Result<bool, RegistryError> {
        // Most callers present something that is no token: that must not cost a write.
        if self.read_one::<StoredToken>(TOKENS, digest)?.is_none() {
            return Ok(false);
        }
        let now_ms = self.now_ms();
        self.write(TOKENS, |rows| {
            let row = match rows.get(digest)? {
                Some(value) => serde_json::from_slice::<StoredToken>(value.value())?,
                None => return Ok(false),
            };
            let StoredToken { token, used } = row;
            let valid = !used && token.stream == *stream && token.grants == grants && now_ms < token.expires_at_ms;
            if valid {
                rows.insert(digest, encode(&StoredToken { token, used: true })?.as_slice())?;
            }
            Ok(valid)
        })
    }
}

const USERS: Table = TableDefinition::new("users");
const TOKENS: Table = TableDefinition::new("tokens");
