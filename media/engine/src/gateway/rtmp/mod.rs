//! RTMP in and out: publishers become producers of the hub, players receive its streams.
//!
//! ```text
//!   server: accepts --> connection: one task each; reads, writes, keeps its deadline
//!     --> conversation: bytes -> messages, requests (client) -> role, replies
//!           |-- publish: messages -> hub
//!           '-- play: joins the fan-out of a stream
//!   fanout: one task per stream packs frames -> ring
//!              --> one task per 64 players writes packets -> link: one socket
//! ```
//!
//! RULE: knows `hub`, `access` and `wire::rtmp`, and no other gateway.

#[cfg(test)]
mod access_test;
mod client;
mod close_reason;
mod connection;
mod conversation;
mod deadlines;
#[cfg(test)]
mod deadlines_test;
mod fanout;
mod link;
mod loopback;
mod metrics;
mod permission;
mod play;
#[cfg(test)]
mod play_test;
mod publish;
#[cfg(test)]
mod publish_test;
mod reassembly;
mod ring;
mod role;
mod server;
#[cfg(test)]
mod server_test;
mod shared;
mod shared_ring;
#[cfg(test)]
mod test_client;
#[cfg(test)]
mod test_server;

pub use metrics::Metrics;
pub use server::{Server, Services};
