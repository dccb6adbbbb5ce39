//! The types that crates share.
//!
//! | module | contents |
//! | --- | --- |
//! | [`documents`] | what the registry stores: nodes, streams, apps, users, tokens |
//! | [`control`] | what engine and daemon exchange: endpoints, node health, engine status |
//! | [`config`] | the configuration file of a node |
//! | [`rest`] | bodies of the REST API: streams, and broadcasts in Ant Media's shape |
//! | [`name`] | `app/stream_id`, the name of a stream |
//! | [`network`] | a range of IP addresses |
//! | [`error`] | error chains, HTTP error bodies, process exit codes |
//! | [`secret`] | a string that cannot be printed by accident |
//!
//! RULE: types and serde only. No I/O, no clock, no decisions. Every crate may depend on this one,
//! and it depends on none of them.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod control;
pub mod documents;
pub mod error;
pub mod name;
pub mod network;
pub mod rest;
pub mod secret;

pub use config::Config;
pub use name::StreamName;
pub use network::IpNetwork;
