//! End-to-end cases: our programs as a user runs them, against programs that are not ours. One module per flow.
//!
//! `cargo build --workspace && cargo test -p headwater-tests --test e2e`
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod administrator;
mod autoscaling;
mod clock;
mod cluster;
mod database_faults;
mod enhanced;
mod handover;
mod hls;
mod hostile;
mod life;
mod load_tool;
mod metadata;
mod node;
mod obs;
mod probe;
mod readiness;
mod registry_faults;
mod registry_node;
mod relay;
mod rtmp;
mod slow;
mod srv;
mod tls_line;
mod together;
mod warm_pool;
mod whep;
