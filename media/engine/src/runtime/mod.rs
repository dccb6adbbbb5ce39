//! Threads, files and sockets: the worker pool, the placement of connections on it, memory files,
//! open files, listeners, certificates, trusted proxies, pools of places for clients, token
//! buckets, the secret of the node, the wall clock, and the stages in which rooms are mounted.
//!
//! RULE: knows no stream and no protocol.

pub mod client_pool;
pub mod descriptors;
pub mod listener;
pub mod log_limiter;
pub mod memfd;
pub mod node_secret;
pub mod placement;
pub mod stages;
pub mod tls;
pub mod token_bucket;
pub mod trusted_proxies;
pub mod wall_clock;
pub mod worker_pool;
