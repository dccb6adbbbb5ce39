//! End-to-end tests: the built programs as a user runs them, with independent clients. One module
//! per flow.
//!
//! `cargo build --workspace && cargo test -p headwater-tests --test e2e`
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod administrator;
mod apps;
mod autoscaling;
mod clock;
mod cluster;
mod database_faults;
mod engine_lifecycle;
mod enhanced;
mod handover;
mod hls;
mod hls_constancy;
mod hostile;
mod https;
mod load_tool;
mod metadata;
mod node;
mod obs;
mod probe;
mod readiness;
mod registry_faults;
mod registry_node;
mod registry_outage;
mod relay;
mod rtmp;
mod slow_peers;
mod srv;
mod tls_proxy;
mod warm_pool;
mod whep;
