//! This node in the cluster: which node owns a stream, and where it can be pulled from.
//!
//! ```text
//!   gateways --> hub --StreamOwnership--> claims --------------------------+
//!                 |                                                        +--> registry
//!                 '--RemoteStreams--> relay --StreamResolver--> lookup ----+
//! ```
//!
//! The registry may be unreachable at any time: then publishers are accepted and registered later,
//! and lookups use cached answers. RULE: knows the hub, the registry and the relay's traits, and no
//! protocol.

mod claim_table;
mod claims;
#[cfg(test)]
mod cluster_test;
mod fixed;
mod lookup;
mod lookup_cache;
mod member;
mod node_groups;
mod peer_caches;
mod query_cache;
mod snapshot;
mod standalone_heartbeat;
mod takeover;
#[cfg(test)]
mod takeover_test;
mod witness_rounds;

pub use fixed::StaticResolver;
pub use member::{Cluster, Identity};
pub use snapshot::{CachedSnapshot, ClusterSnapshotCache, DrainOutcome, RemoveOutcome};
pub use standalone_heartbeat::{ReadyFuture, run_standalone_heartbeat};
