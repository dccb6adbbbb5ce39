//! What the engine and the daemon of one node exchange.
//!
//! ```text
//!   daemon --(node health, JSON lines on a socket)--------> engine
//!   daemon <--(engine reports, on the same socket)--------- engine
//!   daemon <--(/status, /relays on the health listener)---- engine
//!   daemon --(administrator.new: a user)------------------> engine
//!
//!   doctor, tests <--(engine.json: endpoints)-------------- engine
//!   commands <--(local.key: for administrators)------------ engine
//! ```

mod endpoints;
mod engine_report;
mod engine_status;
mod local_key;
mod new_administrator;
mod node_health;

pub use endpoints::{ENDPOINTS_FILE, Endpoints};
pub use engine_report::{ENGINE_REPORT_INTERVAL_SECS, EngineReport};
pub use engine_status::{EngineStatus, RelayStatus};
pub use local_key::LOCAL_KEY_FILE;
pub use new_administrator::NEW_ADMINISTRATOR_FILE;
pub use node_health::{CLOCK, LEASE, NodeHealth, REGISTERED, REPORT_INTERVAL_SECS};
