//! The registry of a cluster: MongoDB.
//!
//! One collection a kind of document; `docs/registry.md` has the schema. Every lease is decided by the database's own clock, in
//! updates that read `$$NOW`, and every change that must be one step is one update of one document. Nothing else of
//! MongoDB is used: no transactions, no change streams, no `$expr`. The driver retries a call once on another server; beyond
//! that the caller retries. Must not know what documents are used for.

mod connect;
mod documents;
mod failure;
mod link;
mod mongod;
mod nodes;
mod schema;
mod set_config;
mod source;
mod streams;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::app::AppDocument;
use headwater_api::node::{BootEpoch, Heartbeat, Life, NodeDocument, NodeRecord};
use headwater_api::recording::{RecordingDocument, RecordingQuery};
use headwater_api::secret::Secret;
use headwater_api::stream::{Claim, StreamOffer, StreamRecord};
use headwater_api::token::{Grant, TokenDocument};
use headwater_api::user::UserDocument;
use mongodb::Collection;
use mongodb::bson::Document;
use tokio::sync::OnceCell;

use crate::{Peers, Registry, RegistryError, Timing, Wish};

pub use mongod::{Mongod, User, UserRights};
pub use set_config::{Hello, MemberState, MemberStatus, SetConfig};
pub use source::Source;

/// A registry in MongoDB. Cheap to clone; the last clone dropped closes its connections.
#[derive(Clone)]
pub struct MongoDb(Arc<Inner>);

struct Inner {
    link: link::Link,
    timing: Timing,
    /// A call that takes longer has failed.
    patience: Duration,
    prepared: OnceCell<()>,
}

impl std::fmt::Debug for MongoDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MongoDb({})", self.servers())
    }
}

impl MongoDb {
    /// Reads a connection string, `mongodb://` or `mongodb+srv://`, and connects when first used; an SRV name is resolved then, too.
    /// The string's database, `headwater` if it names none, is the registry.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] if the string is no good.
    pub async fn open(uri: &Secret, timing: Timing) -> Result<Self, RegistryError> {
        Self::open_patient(uri, timing, PATIENCE).await
    }

    async fn open_patient(uri: &Secret, timing: Timing, patience: Duration) -> Result<Self, RegistryError> {
        let link = link::Link::open(uri, patience).await?;
        Ok(Self(Arc::new(Inner { link, timing, patience, prepared: OnceCell::new() })))
    }

    /// A collection, once the schema is there.
    async fn collection(&self, name: &str, attempted: &str) -> Result<Collection<Document>, RegistryError> {
        let database = &self.0.link.known(attempted).await?.database;
        let collection = database.collection(name);
        if !self.0.prepared.initialized() {
            let prepare = self.0.prepared.get_or_try_init(|| schema::prepare(database));
            self.attempt(attempted, async { prepare.await.map(drop) }).await?;
        }
        Ok(collection)
    }

    /// Host and port of the servers, or the name that leads to them, for messages.
    fn servers(&self) -> &str {
        self.0.link.servers()
    }

    /// Waits for a call to the database, [`PATIENCE`] at the longest. `attempted`: "could not …".
    async fn attempt<T>(
        &self,
        attempted: &str,
        call: impl Future<Output = mongodb::error::Result<T>> + Send,
    ) -> Result<T, RegistryError> {
        // The driver's futures are tens of kilobytes; boxed, they stay out of everybody else's.
        match tokio::time::timeout(self.0.patience, Box::pin(call)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(failure::failed(attempted, self.servers(), e)),
            Err(_) => Err(failure::silent(attempted, self.servers(), self.0.patience)),
        }
    }
}

impl Registry for MongoDb {
    async fn register(&self, node: &NodeDocument, resumes: Option<BootEpoch>) -> Result<Life, RegistryError> {
        nodes::register(self, node, resumes).await
    }

    async fn heartbeat(&self, life: &Life, heartbeat: &Heartbeat) -> Result<Wish, RegistryError> {
        nodes::heartbeat(self, life, heartbeat).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, RegistryError> {
        nodes::list(self, nodes::Wanted::All).await
    }

    async fn peers(&self, which: Peers<'_>) -> Result<Vec<NodeRecord>, RegistryError> {
        nodes::list(self, nodes::Wanted::Peers(which)).await
    }

    async fn node(&self, id: &str) -> Result<Option<NodeRecord>, RegistryError> {
        Ok(nodes::list(self, nodes::Wanted::One(id)).await?.pop())
    }

    async fn remove_node(&self, id: &str) -> Result<bool, RegistryError> {
        nodes::remove(self, id, None).await
    }

    async fn ask_to_drain(&self, life: &Life) -> Result<bool, RegistryError> {
        nodes::ask_to_drain(self, life).await
    }

    async fn leave(&self, life: &Life) -> Result<bool, RegistryError> {
        nodes::remove(self, &life.node, Some(life.epoch)).await
    }

    async fn claim(
        &self,
        owner: &Life,
        name: &StreamName,
        offer: &StreamOffer,
        resumes: Option<u64>,
    ) -> Result<Claim, RegistryError> {
        streams::claim(self, owner, name, offer, resumes).await
    }

    async fn renew(&self, owner: &Life, held: &[Claim]) -> Result<Vec<StreamName>, RegistryError> {
        streams::renew(self, owner, held).await
    }

    async fn release(&self, claim: &Claim) -> Result<bool, RegistryError> {
        streams::release(self, claim).await
    }

    async fn release_all(&self, owner: &Life) -> Result<u64, RegistryError> {
        streams::release_all(self, owner).await
    }

    async fn stream(&self, name: &StreamName) -> Result<Option<StreamRecord>, RegistryError> {
        Ok(streams::list(self, Some(name)).await?.pop())
    }

    async fn streams(&self) -> Result<Vec<StreamRecord>, RegistryError> {
        streams::list(self, None).await
    }

    async fn apps(&self) -> Result<Vec<AppDocument>, RegistryError> {
        documents::all(self, schema::APPS).await
    }

    async fn put_app(&self, app: &AppDocument) -> Result<(), RegistryError> {
        documents::put(self, schema::APPS, &app.name, app).await
    }

    async fn remove_app(&self, name: &str) -> Result<bool, RegistryError> {
        documents::remove(self, schema::APPS, name).await
    }

    async fn put_recording(&self, recording: &RecordingDocument) -> Result<(), RegistryError> {
        documents::put_recording(self, recording).await
    }

    async fn recording(&self, id: &str) -> Result<Option<RecordingDocument>, RegistryError> {
        documents::one(self, schema::RECORDINGS, id).await
    }

    async fn recordings(&self, query: &RecordingQuery) -> Result<Vec<RecordingDocument>, RegistryError> {
        documents::recordings(self, query).await
    }

    async fn remove_recording(&self, id: &str) -> Result<bool, RegistryError> {
        documents::remove(self, schema::RECORDINGS, id).await
    }

    async fn create_user(&self, user: &UserDocument) -> Result<(), RegistryError> {
        documents::create(self, schema::USERS, &user.name, user).await
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

    async fn remove_user(&self, name: &str) -> Result<bool, RegistryError> {
        documents::remove(self, schema::USERS, name).await
    }

    async fn create_token(&self, token: &TokenDocument) -> Result<(), RegistryError> {
        documents::create_token(self, token).await
    }

    async fn consume_token(&self, digest: &str, stream: &StreamName, grants: Grant) -> Result<bool, RegistryError> {
        documents::consume_token(self, digest, stream, grants).await
    }

    async fn probe(&self) -> Result<u64, RegistryError> {
        documents::probe(self).await
    }
}

/// Longer than the two seconds a struggling database may take for each of the four answers to a new connection and its first
/// call; shorter than a lease.
const PATIENCE: Duration = Duration::from_secs(10);
