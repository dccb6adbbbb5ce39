//! Users and tokens in MongoDB: `{ _id, document, … }`. The fields next to a token's `document` are
//! those that the database itself evaluates.

use headwater_api::StreamName;
use headwater_api::documents::{Grant, MAX_ENDED_SESSIONS, TokenDocument, UserDocument};
use mongodb::bson::{Bson, DateTime, doc};
use mongodb::options::ReturnDocument;

use super::values::{time_ms, to_bson, to_i64};
use super::{MongoDb, documents, schema};
use crate::{Accounts, RegistryError};

impl Accounts for MongoDb {
    async fn create_user(&self, user: &UserDocument) -> Result<(), RegistryError> {
        documents::insert(self, schema::USERS, &user.name, user, doc! { "_id": &user.name }).await
    }

    async fn put_user(&self, user: &UserDocument) -> Result<(), RegistryError> {
        documents::put(self, schema::USERS, &user.name, user).await
    }

    async fn user(&self, name: &str) -> Result<Option<UserDocument>, RegistryError> {
        documents::one(self, schema::USERS, name).await
    }

    async fn users(&self) -> Result<Vec<UserDocument>, RegistryError> {
        documents::all(self, schema::USERS).await
    }

    async fn end_session(&self, user: &str, session: &str) -> Result<bool, RegistryError> {
        let attempted = format!("end a session of user {user}");
        let users = self.collection(schema::USERS, &attempted).await?;
        let latest = to_i64(MAX_ENDED_SESSIONS as u64);
        let ended = doc! { "document.ended_sessions": { "$each": [session], "$slice": -latest } };
        let call = users.update_one(doc! { "_id": user }, doc! { "$push": ended });
        Ok(self.attempt(&attempted, call.into_future()).await?.matched_count > 0)
    }

    async fn remove_user(&self, name: &str) -> Result<bool, RegistryError> {
        documents::remove(self, schema::USERS, name).await
    }

    async fn create_token(&self, token: &TokenDocument) -> Result<(), RegistryError> {
        let fields = doc! {
            "_id": &token.digest,
            "stream": token.stream.as_str(),
            "grants": to_bson(&token.grants).unwrap_or(Bson::Null),
            "used": false,
            "expire_at": DateTime::from_millis(to_i64(token.expires_at_ms)),
        };
        documents::insert(self, schema::TOKENS, &token.digest, token, fields).await
    }

    /// Marks the token as used. It is kept until it expires, so that it cannot be created again.
    async fn consume_token(&self, digest: &str, stream: &StreamName, grants: Grant) -> Result<bool, RegistryError> {
        let attempted = format!("consume a token of stream {stream}");
        let tokens = self.collection(schema::TOKENS, &attempted).await?;
        let grants = to_bson(&grants).map_err(|e| self.call_failed(&attempted, e))?;
        let filter = doc! { "_id": digest, "stream": stream.as_str(), "grants": grants, "used": false };
        let used = doc! { "$set": { "used": true, "used_at": "$$NOW" } };
        let call = tokens.find_one_and_update(filter, vec![used]).return_document(ReturnDocument::After);
        let token = self.attempt(&attempted, call.into_future()).await?;
        Ok(token.is_some_and(|token| time_ms(&token, "used_at") < time_ms(&token, "expire_at")))
    }
}
