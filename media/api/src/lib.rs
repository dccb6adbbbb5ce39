//! The words that rooms share: configuration, node, stream, status.
//!
//! RULE: types and serde, nothing else. No I/O, no clock, no decision; any room may know this one, and it knows none.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod app;
pub mod broadcast;
pub mod config;
pub mod endpoints;
pub mod error;
pub mod name;
pub mod node;
pub mod recording;
pub mod secret;
pub mod standing;
pub mod status;
pub mod stream;
pub mod token;
pub mod user;

pub use config::Config;
pub use name::StreamName;
