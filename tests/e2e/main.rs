//! End-to-end cases: our programs as a user runs them, against programs that are not ours. One module per flow.
//!
//! `cargo build --workspace && cargo test -p headwater-tests --test e2e`
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod hls;
mod hostile;
mod autoscaling;
mod life;
mod load_tool;
mod obs;
mod probe;
mod rtmp;
mod whep;
mod metadata;
mod node;
