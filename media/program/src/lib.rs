//! What `headwaterd` and the engine do alike as programs, and neither may have from the other: log lines, password hashes, how busy
//! the processors are.
//!
//! RULE: knows no media, no node and no registry; waits for nothing. What is only types belongs into `api`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod logging;
pub mod password;
pub mod processors;
