//! The assembly of the engine: `build` opens every listener, `run` starts every task, `drain` ends
//! them in order.
//!
//! RULE: the only room that knows every other room. It decides nothing that one of them could
//! decide.

pub mod build;
pub mod drain;
