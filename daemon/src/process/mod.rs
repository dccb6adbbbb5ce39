//! Processes: the engine and other children, the restart delays, and the service manager that runs
//! the daemon.

pub(crate) mod backoff;
pub(crate) mod child;
pub(crate) mod engine;
pub(crate) mod engine_config_file;
pub(crate) mod engine_link;
pub(crate) mod engine_rest;
pub(crate) mod engine_state;
pub(crate) mod engine_status;
pub(crate) mod node_health_sender;
pub(crate) mod service_manager;
