//! Users in MongoDB: `{ _id, document }`.

use headwater_api::documents::{MAX_ENDED_SESSIONS, UserDocument};
use mongodb::bson::doc;

use super::values::to_i64;
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
}
