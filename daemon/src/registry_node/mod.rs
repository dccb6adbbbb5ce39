//! The role `registry`: a mongod and its replica set.
//!
//! `membership` decides (a pure function) which step this node takes; `reconciler` takes it.

pub(crate) mod config;
pub(crate) mod health;
pub(crate) mod keyfile;
pub(crate) mod log_output;
pub(crate) mod membership;
pub(crate) mod mongod;
pub(crate) mod node;
pub(crate) mod readiness;
pub(crate) mod reconciler;
pub(crate) mod registration;
