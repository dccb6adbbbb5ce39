//! What the daemon and the engine share as programs.
//!
//! | module | contents |
//! | --- | --- |
//! | [`logging`] | the destination, format and level of log lines |
//! | [`password`] | password generation, hashing and verification |
//! | [`token`] | random tokens and keys |
//! | [`cpu_meter`] | CPU usage from `/proc/stat` |
//! | [`free_space`] | free space of a folder |
//! | [`descriptors`] | the limit of open files |
//! | [`private_file`] | files that only their owner may read, and full disks |
//! | [`own_tls`] | TLS from a program of a node to a listener of the same node |
//!
//! RULE: must not know media, nodes or the registry, and must not wait. Plain types belong in
//! `headwater-api`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cpu_meter;
pub mod descriptors;
pub mod free_space;
pub mod logging;
pub mod own_tls;
pub mod password;
pub mod private_file;
pub mod token;
