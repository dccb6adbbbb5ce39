//! The boot of a node: facts, plan, registration, then supervision until the node drains.
//!
//! `facts` and `settings` are read, `plan` decides (a pure function), `planner` repeats both until
//! the plan calls for work, `registration` registers the node, `node` runs the sequence.

pub(crate) mod data_dir;
pub(crate) mod error;
pub(crate) mod facts;
pub(crate) mod joining;
pub(crate) mod node;
pub(crate) mod plan;
pub(crate) mod planner;
pub(crate) mod registration;
pub(crate) mod run_state;
pub(crate) mod settings;
pub(crate) mod supervisor;
