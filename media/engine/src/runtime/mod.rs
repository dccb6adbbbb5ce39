//! Threads, files and sockets: the worker pool, the placement of connections on it, memory files,
//! listeners and TLS.
//!
//! RULE: knows no stream and no protocol.

pub mod listener;
pub mod memfd;
pub mod placement;
pub mod stages;
pub mod tls;
pub mod worker_pool;
