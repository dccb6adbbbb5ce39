//! What happens to streams: publishers and viewers that start, end or are refused.
//!
//! ```text
//!   gateways --Event--> EventBus --> counters             at once, never lost
//!                          +-------> log                  at once; limited per client
//!                          '-------> Subscription         bounded; what is lost is counted
//! ```
//!
//! RULE: knows no protocol and no room that reports. An event is a plain value; subscribers never
//! slow down the reporter.

mod bus;
mod counters;
mod event;
mod log;

pub use bus::{EventBus, Subscription};
pub use event::{Event, Protocol};
