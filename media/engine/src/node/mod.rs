//! The state of this node: its load, its health as the daemon reports it, which clients it admits,
//! and the time.
//!
//! RULE: knows the hub's counters and no protocol.

pub mod admission;
pub mod health;
pub mod load;
pub mod wall_clock;
