//! This node among the others: whose a stream is, and where it lives.
//!
//! ```text
//!   gateways --> hub --owners---> claims --+
//!                 |                        +--> registry
//!                 '--elsewhere--> relay --locate--> lookup
//! ```
//!
//! The registry may be away at any time: publishers are let in and registered later, lookups go on from what is known. RULE:
//! knows the hub, the registry and the relay's question, and no protocol.

mod alone;
mod claims;
#[cfg(test)]
mod cluster_test;
mod fixed;
mod group;
mod kept;
mod lookup;
mod member;
mod view;

pub use alone::{Readying, stay_registered};
pub use fixed::Fixed;
pub use member::{Cluster, Identity};
pub use view::{DrainWish, Removal, Seen, View};
