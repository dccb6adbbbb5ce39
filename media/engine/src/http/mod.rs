//! The web server: pages, REST, and the HTTP side of HLS and WHEP.
//!
//! Requests enter through `serve`, are routed to `media`, `rest` or `pages`, and use the hub or a
//! gateway. This room knows no media format: `media` only translates between a gateway and HTTP.

mod auth;
mod error;
mod media;
mod ops;
mod pages;
mod rest;
mod serve;
mod state;
#[cfg(test)]
mod test_node;

pub use auth::{Accounts, LocalKey, SessionKey};
pub use error::{Code, Problem};
pub use ops::disk_check::DiskCheck;
pub use ops::health::{HealthService, Readiness};
pub use ops::health_server::HealthServer;
pub use ops::peers::RelayRoutes;
pub use ops::process::{ProcessMetrics, StreamMetrics};
pub use ops::readiness::ProbeCache;
pub use serve::body::SmallBody;
pub use serve::client::{Client, Encryption};
pub use serve::listener::Server;
pub use serve::metrics::Metrics;
pub use serve::service::HttpService;
pub use state::{AppServices, AppState, PeerStatus};
