//! What operators and load balancers request: health, metrics, and the state of the relays of other
//! nodes.

pub(super) mod health;
pub(super) mod peers;
pub(super) mod probe;
pub(super) mod process;
mod role_check;
