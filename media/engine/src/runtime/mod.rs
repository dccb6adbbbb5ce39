//! Threads, files and sockets: the worker pool, the placement of connections on it, memory files,
//! listeners, TLS, the wall clock, and the stages in which rooms are mounted.
//!
//! RULE: knows no stream and no protocol.

pub mod listener;
pub mod memfd;
pub mod placement;
pub mod stages;
pub mod tls;
pub mod wall_clock;
pub mod worker_pool;
