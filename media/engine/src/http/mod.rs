//! The web server: pages, REST, and the HTTP side of HLS and WHEP.
//!
//! Requests come in through `server`, are sorted by `router`, and ask the hub or a gateway. What a gateway does is not
//! known here; `hls` and `whep` only translate between it and HTTP.

mod assets;
mod auth;
mod body;
mod cluster;
mod connection;
mod error;
mod health;
mod hls;
mod metrics;
mod pages;
mod patience;
mod probe;
mod process_metrics;
mod relays;
mod rest;
mod router;
mod server;
mod site;
mod state;
#[cfg(test)]
mod test_node;
mod uncopied;
mod whep;

pub use auth::{Accounts, KeyError, SessionKey};
pub use body::Small;
pub use connection::Peer;
pub use error::{Code, Problem};
pub use health::{Health, MAX_CONNECTIONS as MAX_HEALTH_CONNECTIONS, Pulse, Readiness};
pub use metrics::Metrics;
pub use process_metrics::{Carried, Process};
pub use relays::Relays;
pub use server::Server;
pub use site::Site;
pub use state::{Others, Parts, State};
