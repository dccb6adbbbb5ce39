//! What the engine and the daemon of one node exchange.
//!
//! ```text
//!   daemon --(node health, JSON lines on standard input)--> engine
//!   daemon <--(engine.json: endpoints)--------------------- engine
//!   daemon <--(/status, /relays on the health listener)---- engine
//!   daemon --(administrator.new: a user)------------------> engine
//! ```

mod endpoints;
mod engine_status;
mod new_administrator;
mod node_health;

pub use endpoints::{ENDPOINTS_FILE, Endpoints};
pub use engine_status::{EngineStatus, RelayStatus};
pub use new_administrator::NEW_ADMINISTRATOR_FILE;
pub use node_health::{CLOCK, LEASE, NodeHealth, REGISTERED, REPORT_INTERVAL_SECS};
