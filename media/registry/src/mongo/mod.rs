//! The registry of a cluster: MongoDB. `docs/registry.md` has the schema.
//!
//! | module | contents |
//! | --- | --- |
//! | `nodes`, `streams`, `accounts`, `apps` | one subject each |
//! | `database` | [`MongoDb`], and how every call is bounded in time |
//! | `probe` | one write, which returns the database's clock |
//! | `lazy_database`, `connect`, `reloadable` | from a connection string, or a file with one, to a client |
//! | `schema`, `documents`, `values` | collections and indexes; documents by id; BSON |
//! | `failure` | the driver's errors as [`RegistryError`](crate::RegistryError) |
//! | `mongod`, `replica_set_config` | one server, and the replica set it is in |
//!
//! Every lease is decided by the database's own clock, in updates that read `$$NOW`, and every
//! change that must be atomic is one update of one document. Nothing else of MongoDB is used: no
//! transactions, no change streams, no `$expr`. The driver retries a call once on another server;
//! beyond that the caller retries.
//!
//! RULE: must not know what the documents are used for.

mod accounts;
mod apps;
mod connect;
mod database;
mod documents;
mod failure;
mod lazy_database;
mod mongod;
mod nodes;
mod probe;
mod reloadable;
mod replica_set_config;
mod schema;
mod streams;
#[cfg(test)]
mod tests;
mod tokens;
mod values;

pub use database::MongoDb;
pub use mongod::{DatabaseRights, DatabaseUser, Mongod};
pub use reloadable::ReloadableMongoDb;
pub use replica_set_config::{Hello, MemberState, MemberStatus, ReplicaSetConfig};
