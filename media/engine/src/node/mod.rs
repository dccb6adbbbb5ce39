//! The state of this node: its load, its health as the daemon reports it, the reports to the
//! daemon, and which clients it admits.
//!
//! RULE: knows the hub's counters and no protocol.

pub mod admission;
pub mod daemon_reports;
pub mod health;
pub mod load;
