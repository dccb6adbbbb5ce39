//! Harness for end-to-end tests: starts the built programs and third-party tools, and sends HTTP
//! requests to them.
//!
//! All functions block the calling thread and wait for a named state up to a deadline; none sleeps
//! for a fixed time. RULE: uses the built programs only through their files, ports and log lines.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod administrator;
pub mod autoscaling;
pub mod clock;
pub mod cluster;
pub mod daemon;
pub mod decode;
pub mod delay_proxy;
pub mod dns;
pub mod engine;
pub mod http;
pub mod metadata;
pub mod mongo;
pub mod mongo_wire;
pub mod moto;
pub mod namespace;
pub mod pion;
pub mod process;
pub mod publish;
pub mod recording_proxy;
pub mod replica_set;
pub mod rtmp;
pub mod tapped_proxy;
pub mod tcp;
pub mod temp;
pub mod tools;
pub mod wait;
