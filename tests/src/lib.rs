//! Harness for tests against strangers: starts our programs, finds and runs theirs, asks over HTTP.
//!
//! Everything here blocks the calling thread and waits for a named state up to a deadline; nothing sleeps for "long
//! enough". RULE: knows our programs only from outside: their files, ports and log lines.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod autoscaling;
pub mod clock;
pub mod cluster;
pub mod daemon;
pub mod decode;
pub mod delay;
pub mod dns;
pub mod engine;
pub mod http;
pub mod metadata;
pub mod mongo;
pub mod mongo_wire;
pub mod moto;
pub mod pion;
pub mod process;
pub mod publish;
pub mod replica_set;
pub mod rtmp;
pub mod tap;
pub mod temp;
pub mod toll;
pub mod tools;
pub mod wait;
