//! The media engine: everything that waits.
//!
//! Publishers come in through `gateway`, cross the `hub` as frames, and leave through `gateway` again. Arrows allowed:
//! `engine -> every room`, `http -> cluster, gateway, hub`, `cluster -> gateway (where streams live), hub, registry`,
//! `gateway, transcode -> hub`, all of those -> `wire, api, registry, program`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
pub mod apps;
pub mod cluster;
pub mod engine;
pub mod farewell;
pub mod fill;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod lanes;
pub mod listen;
pub mod load;
pub mod memory_file;
pub mod standing;
pub mod tls;
pub mod transcode;
