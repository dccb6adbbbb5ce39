//! The documents that outlive a process: nodes, streams, apps, recordings, users, tokens.
//!
//! One trait, [`Registry`], so that whoever asks need not know where documents are kept, and one type, [`Store`], for
//! whoever is told by the configuration. A node and a stream are held by lease: what is not renewed in time is free for
//! others, by the registry's clock alone. RULE: the only room that names a database. It must not know what its documents
//! are used for.
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
mod contract;
mod embedded;
mod error;
mod leases;
mod mongo;
mod pace;
mod store;

use std::future::Future;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::app::AppDocument;
use headwater_api::node::{BootEpoch, Heartbeat, Life, NodeDocument, NodeRecord};
use headwater_api::recording::{RecordingDocument, RecordingQuery};
use headwater_api::stream::{Claim, StreamOffer, StreamRecord};
use headwater_api::token::{Grant, TokenDocument};
use headwater_api::user::UserDocument;

pub use embedded::{Embedded, FILE_NAME};
pub use error::RegistryError;
pub use mongo::{Hello, MemberState, MemberStatus, MongoDb, Mongod, SetConfig, Source, User, UserRights};
pub use pace::{HeartbeatInterval, jitter};
pub use store::Store;

/// A store of documents. Each call is one step: it happens whole, or not at all and gives an error.
///
/// After an error that [is retryable](RegistryError::is_retryable) a write may have happened all the same (its answer was
/// lost); every call may be repeated. The caller owns the retry, and waits no longer than the store's own time-out.
pub trait Registry: Send + Sync {
    /// Writes a node and begins its lease.
    ///
    /// With `resumes: None` a new life begins, later than all lives of this id before; the life before, if any, is told
    /// so by its next call. With the epoch of this life the node is written again, after its document was lost or when what it says
    /// has changed.
    ///
    /// # Errors
    /// [`RegistryError::Superseded`] if a later life than `resumes` has registered.
    fn register(
        &self,
        node: &NodeDocument,
        resumes: Option<BootEpoch>,
    ) -> impl Future<Output = Result<Life, RegistryError>> + Send;

    /// Renews a node's lease, tells its load, and gives what operators want of it. Every [`Timing::heartbeat`].
    ///
    /// # Errors
    /// [`RegistryError::NotRegistered`] if its document is gone (register again, with the same epoch);
    /// [`RegistryError::Superseded`] if a later life has registered (end).
    fn heartbeat(&self, life: &Life, heartbeat: &Heartbeat)
    -> impl Future<Output = Result<Wish, RegistryError>> + Send;

    /// All nodes, dead ones that are not yet forgotten included, sorted by id.
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeRecord>, RegistryError>> + Send;

    /// The same of some nodes, and without what is watched there: what other nodes need to find a way.
    fn peers(&self, which: Peers<'_>) -> impl Future<Output = Result<Vec<NodeRecord>, RegistryError>> + Send;

    /// One node.
    fn node(&self, id: &str) -> impl Future<Output = Result<Option<NodeRecord>, RegistryError>> + Send;

    /// Removes a node in the name of an operator, and says if it was there. One that lives comes back with its next heartbeat.
    fn remove_node(&self, id: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Asks this life of a node to drain, in the name of an operator, and says if there is such a life. It hears it with its next
    /// heartbeat, and its next life begins without it.
    fn ask_to_drain(&self, life: &Life) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Removes a node that ends in order. A later life of it stays, and the answer is false.
    fn leave(&self, life: &Life) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Makes `owner` the one owner of a stream.
    ///
    /// Granted if nobody holds the name: it was never claimed, its owner has let go, its owner's lease has ended, or its
    /// owner is the claimant, in this life or an earlier one. The claim's epoch is then greater than any before it.
    /// With `resumes`, the epoch of a claim that this owner had: the claim goes on under the same epoch if nobody else has
    /// had the name since.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] while another owner's lease lives.
    fn claim(
        &self,
        owner: &Life,
        name: &StreamName,
        offer: &StreamOffer,
        resumes: Option<u64>,
    ) -> impl Future<Output = Result<Claim, RegistryError>> + Send;

    /// Renews the leases of all streams that an owner holds, in one operation; with each heartbeat. Gives the names that are no
    /// longer its own: claim them again, resuming, or end them.
    fn renew(
        &self,
        owner: &Life,
        held: &[Claim],
    ) -> impl Future<Output = Result<Vec<StreamName>, RegistryError>> + Send;

    /// Lets go of a stream, so that anybody may have it at once. False if the claim was no longer good.
    fn release(&self, claim: &Claim) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Lets go of all streams of one life: its engine has ended. Says how many there were.
    fn release_all(&self, owner: &Life) -> impl Future<Output = Result<u64, RegistryError>> + Send;

    /// The stream of this name, if it lives.
    fn stream(&self, name: &StreamName) -> impl Future<Output = Result<Option<StreamRecord>, RegistryError>> + Send;

    /// All streams that live, sorted by name.
    fn streams(&self) -> impl Future<Output = Result<Vec<StreamRecord>, RegistryError>> + Send;

    /// All apps, sorted by name.
    fn apps(&self) -> impl Future<Output = Result<Vec<AppDocument>, RegistryError>> + Send;

    /// Writes an app; one of the same name is replaced.
    fn put_app(&self, app: &AppDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Removes an app, and says if it was there. Its streams go on.
    fn remove_app(&self, name: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Writes a recording; one of the same id is replaced.
    fn put_recording(&self, recording: &RecordingDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// One recording.
    fn recording(&self, id: &str) -> impl Future<Output = Result<Option<RecordingDocument>, RegistryError>> + Send;

    /// Recordings, newest first.
    fn recordings(
        &self,
        query: &RecordingQuery,
    ) -> impl Future<Output = Result<Vec<RecordingDocument>, RegistryError>> + Send;

    /// Removes the document of a recording, and says if it was there. Files are the caller's.
    fn remove_recording(&self, id: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Writes a user who must be new.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] if there is one of that name.
    fn create_user(&self, user: &UserDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Writes a user; one of the same name is replaced.
    fn put_user(&self, user: &UserDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// One user.
    fn user(&self, name: &str) -> impl Future<Output = Result<Option<UserDocument>, RegistryError>> + Send;

    /// All users, sorted by name.
    fn users(&self) -> impl Future<Output = Result<Vec<UserDocument>, RegistryError>> + Send;

    /// Removes a user, and says if it was there.
    fn remove_user(&self, name: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Writes a token that must be new.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] if there is one of that digest, used or not.
    fn create_token(&self, token: &TokenDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Uses a token up: true exactly once, if it is of this stream, for this purpose and not expired.
    fn consume_token(
        &self,
        digest: &str,
        stream: &StreamName,
        grants: Grant,
    ) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Writes and reads back, and gives the registry's Unix time in milliseconds.
    fn probe(&self) -> impl Future<Output = Result<u64, RegistryError>> + Send;
}

/// What operators want of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That it serves.
    Serve,
    /// That it drains, and ends.
    Drain,
}

/// Of which nodes somebody wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers<'a> {
    /// Those of these ids. Read by `_id`.
    These(&'a [String]),
    /// The edges of a node group.
    EdgesOf(&'a str),
}

/// How long leases and what is left of them last. All nodes of a cluster must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two renewals; a third of [`Timing::lease`], so that one may fail.
    pub heartbeat: Duration,
    /// A node or a stream that was not renewed for so long is dead: others may have what it held.
    pub lease: Duration,
    /// A dead node is listed for so long, so that one can see that it died.
    pub keep_nodes: Duration,
    /// The epoch of a dead stream is remembered for so long. Must be longer than an outage that owners shall survive.
    pub keep_streams: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            keep_nodes: Duration::from_secs(5 * 60),
            keep_streams: Duration::from_secs(60 * 60),
        }
    }
}
