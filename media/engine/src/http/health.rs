//! `/livez`, `/readyz` and `/metrics`, on a listener of their own that viewers cannot reach.
//!
//! Ready means: not draining, and every room has just given a proof of life. Alive means only that this process still
//! runs tasks: whoever restarts engines looks at that one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use headwater_api::endpoints::Endpoints;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::error::{Code, Problem};
use super::probe;
use super::rest::live;

/// Connections to the health listener at most.
pub const MAX_CONNECTIONS: usize = 64;

/// A proof of life that a room gives without waiting: `Err` with what is wrong.
pub type Pulse = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What health is asked about.
pub struct Health {
    /// Where the engine listens.
    pub endpoints: Endpoints,
    /// Cancelled when the drain begins.
    pub drain: CancellationToken,
    /// Rooms that have no port to be probed at, by name.
    pub pulses: Vec<(&'static str, Pulse)>,
    /// All metrics.
    pub metrics: Registry,
}

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Readiness {
    /// True if traffic should come here.
    pub ready: bool,
    /// Per check, "ok" or what is wrong.
    pub checks: BTreeMap<String, String>,
}

impl Health {
    /// The paths of the health listener.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(async || "alive\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(async || Problem::new(Code::NotFound, "There are /livez, /readyz and /metrics."))
            .with_state(Arc::new(self))
    }

    async fn readiness(&self) -> Readiness {
        let (http, rtmp) = tokio::join!(probe::http(self.endpoints.http), probe::rtmp(self.endpoints.rtmp));
        let drain = if self.drain.is_cancelled() { Err("draining".to_owned()) } else { Ok(()) };
        let pulses = self.pulses.iter().map(|(name, pulse)| (*name, pulse()));
        let results: Vec<_> = [("drain", drain), ("http", http), ("rtmp", rtmp)].into_iter().chain(pulses).collect();
        Readiness {
            ready: results.iter().all(|(_, result)| result.is_ok()),
            checks: results
                .into_iter()
                .map(|(name, result)| (name.to_owned(), result.err().unwrap_or_else(|| "ok".to_owned())))
                .collect(),
        }
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

async fn readyz(health: axum::extract::State<Arc<Health>>) -> Response {
    let readiness = health.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, live(readiness)).into_response()
}

async fn metrics(health: axum::extract::State<Arc<Health>>) -> Response {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &health.metrics).is_err() {
        return Problem::new(Code::Internal, "The metrics could not be written.").into_response();
    }
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn not_ready_says_why() {
        let nowhere = "127.0.0.1:1".parse().unwrap();
        let drain = CancellationToken::new();
        drain.cancel();
        let endpoints = Endpoints {
            relay: None,
            pid: 1,
            http: nowhere,
            https: None,
            rtmp: nowhere,
            rtmps: None,
            webrtc: Vec::new(),
            health: nowhere,
        };
        let pulses: Vec<(&'static str, Pulse)> = vec![("hub", Box::new(|| Ok(())))];
        let readiness = Health { endpoints, drain, pulses, metrics: Registry::default() }.readiness().await;
        assert!(!readiness.ready);
        assert_eq!(readiness.checks["drain"], "draining");
        assert_eq!(readiness.checks["hub"], "ok");
        assert!(readiness.checks["rtmp"].starts_with("does not answer: "), "{}", readiness.checks["rtmp"]);
    }
}
