//! The assembly of the engine: `build` opens every listener, `run` mounts every room and starts its
//! tasks, `drain` stops them in stages.
//!
//! RULE: the only room that knows every other room. It decides nothing that one of them could
//! decide.

mod build;
mod cluster_relay;
mod data_dir;
mod drain;
mod error;
mod run;

pub use build::Engine;
pub use error::StartError;
