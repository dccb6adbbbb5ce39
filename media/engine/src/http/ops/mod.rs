//! What operators and load balancers request: health, metrics, and the state of the relays of other
//! nodes.

pub(super) mod disk_check;
pub(super) mod health;
mod health_connections;
pub(super) mod health_server;
pub(super) mod peers;
pub(super) mod probe;
pub(super) mod process;
pub(super) mod readiness;
mod role_check;
