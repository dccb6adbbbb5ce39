//! The registry: documents that outlive a process, and the leases of nodes and streams.
//!
//! A node and a stream are owned by lease: what is not renewed in time may be claimed by others.
//! The registry's clock alone decides.
//!
//! RULE: the only crate that names a database. It must not know what its documents are used for.
//!
//! # Crate map
//!
//! | module | contents |
//! | --- | --- |
//! | `nodes`, `streams`, `accounts`, `apps`, `tokens` | the interface, one trait per subject |
//! | `store` | [`Store`], the backend that the configuration names |
//! | `embedded` | [`Embedded`], a file of one standalone node, one module per subject |
//! | `mongo` | [`MongoDb`], shared by a cluster, one module per subject; [`Mongod`], one server of a replica set |
//! | `heartbeat_interval` | [`HeartbeatInterval`], randomized pauses between calls |
//! | `error` | [`RegistryError`], and which errors may be retried |
//! | `contract` (tests) | what every backend must do, one module per subject |
//!
//! # How to add a registry backend
//!
//! 1. Create a folder with one file per subject, and implement [`Nodes`], [`Streams`],
//!    [`Accounts`], [`Apps`] and [`Tokens`] for the backend's handle. The handle must be cheap to
//!    clone. Implement [`Registry`] for the remaining call.
//! 2. Decide every lease by one clock, the store's if several processes share it. Make each call
//!    atomic, and map each failure to a variant of [`RegistryError`], so that
//!    [`RegistryError::is_retryable`] is right.
//! 3. Call `contract::check` in a test of the backend.
//! 4. Add a variant to [`Store`] and to `RegistryKind` in `headwater-api`, open it in
//!    [`Store::open_with`], and describe it in `docs/registry.md` and
//!    `docs/headwater.example.toml`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod apps;
#[cfg(test)]
mod contract;
mod embedded;
mod error;
mod heartbeat_interval;
mod mongo;
mod nodes;
mod registry;
mod store;
mod streams;
mod tokens;

pub use accounts::Accounts;
pub use apps::Apps;
pub use embedded::{Embedded, FILE_NAME};
pub use error::RegistryError;
pub use heartbeat_interval::{HeartbeatInterval, jitter};
pub use mongo::{
    DatabaseRights, DatabaseUser, Hello, MemberState, MemberStatus, MongoDb, Mongod, ReloadableMongoDb,
    ReplicaSetConfig,
};
pub use nodes::{DesiredState, Nodes, Peers};
pub use registry::{Registry, Timing};
pub use store::Store;
pub use streams::Streams;
pub use tokens::{MAX_LISTED_TOKENS, TokenQuery, TokenRefusal, TokenUse, Tokens};
