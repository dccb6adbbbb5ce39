//! `/livez`, `/readyz`, `/status` and `/metrics`, on a separate listener that viewers cannot reach.
//!
//! Ready means: not draining, and every check has just succeeded. Live means only that this process
//! still runs tasks; a supervisor restarts the engine if it is not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use headwater_api::endpoints::Endpoints;
use headwater_api::status::EngineStatus;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::gateway::relay::Relay;
use crate::http::error::{Code, Problem};
use crate::http::ops::probe;
use crate::http::rest::live;
use crate::hub::Hub;
use crate::node::admission::Admission;
use crate::node::health::NodeHealthReceiver;
use crate::node::load::{Meter, watched};

/// Maximum number of connections to the health listener.
pub const MAX_CONNECTIONS: usize = 64;

/// A liveness check that does not block. Returns the reason of a failure.
pub type Pulse = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The state of the health listener.
pub struct Health {
    /// Addresses of the listeners to probe.
    pub endpoints: Endpoints,
    /// Cancelled when the drain starts.
    pub drain: CancellationToken,
    /// Probes this node's own relay; `None` without one.
    pub relay: Option<Relay>,
    /// Checks of components without a port to probe, by name.
    pub pulses: Vec<(&'static str, Pulse)>,
    /// The metrics of the engine.
    pub metrics: Registry,
    /// Live streams.
    pub hub: Hub,
    /// Load of this machine.
    pub meter: Meter,
    /// Admission of new viewers.
    pub door: Admission,
    /// The latest health report of the daemon.
    pub told: NodeHealthReceiver,
    /// The data folder, and the megabytes that must be free in it.
    pub disk: (PathBuf, u32),
}

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Readiness {
    /// True if the node should receive traffic.
    pub ready: bool,
    /// The result of each check, by name: "ok" or the reason of the failure.
    pub checks: BTreeMap<String, String>,
}

impl Health {
    /// True if the node should receive traffic.
    pub async fn is_ready(&self) -> bool {
        self.readiness().await.ready
    }

    /// The routes of the health listener.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/livez", get(async || "alive\n"))
            .route("/readyz", get(readyz))
            .route("/status", get(status))
            .route("/metrics", get(metrics))
            .fallback(async || Problem::new(Code::NotFound, "The paths are /livez, /readyz, /status and /metrics."))
            .with_state(self)
    }

    async fn readiness(&self) -> Readiness {
        let at = &self.endpoints;
        let (http, rtmp, https, rtmps, relay) = tokio::join!(
            probe::http(at.http),
            probe::rtmp(at.rtmp),
            if_there(at.https, probe::https),
            if_there(at.rtmps, probe::rtmps),
            if_there(at.relay.zip(self.relay.as_ref()), |(address, relay)| probe::relay(address, relay)),
        );
        let drain = if self.drain.is_cancelled() { Err("draining".to_owned()) } else { Ok(()) };
        let pulses = self.pulses.iter().map(|(name, pulse)| (*name, pulse()));
        let disk = free_space(&self.disk.0, self.disk.1);
        let own = [("drain", drain), ("http", http), ("rtmp", rtmp), ("disk", disk)];
        let configured = [("https", https), ("rtmps", rtmps), ("relay", relay)];
        let configured = configured.into_iter().filter_map(|(name, result)| Some((name, result?)));
        let own = own.into_iter().chain(configured).chain(pulses);
        let all: BTreeMap<String, Result<(), String>> =
            own.map(|(name, result)| (name.to_owned(), result)).chain(self.told.checks()).collect();
        Readiness {
            ready: all.values().all(Result::is_ok),
            checks: all
                .into_iter()
                .map(|(name, result)| (name, result.err().unwrap_or_else(|| "ok".to_owned())))
                .collect(),
        }
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// Runs the probe if the listener is configured. Boxed, because a TLS handshake adds tens of
/// kilobytes to the size of the caller's future.
async fn if_there<T, F>(listener: Option<T>, probe: impl Fn(T) -> F) -> Option<Result<(), String>>
where
    F: Future<Output = Result<(), String>>,
{
    Some(Box::pin(probe(listener?)).await)
}

/// Detects a full disk before recordings and the registry fail.
fn free_space(folder: &Path, wanted_mb: u32) -> Result<(), String> {
    let found =
        nix::sys::statvfs::statvfs(folder).map_err(|e| format!("could not read the free space of {}: {e}", folder.display()))?;
    let free_mb = found.blocks_available() * found.fragment_size() / 1_000_000;
    if free_mb >= u64::from(wanted_mb) {
        return Ok(());
    }
    Err(format!("{free_mb} MB are free in {}; {wanted_mb} MB are required", folder.display()))
}

async fn readyz(health: axum::extract::State<Arc<Health>>) -> Response {
    let readiness = health.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, live(readiness)).into_response()
}

async fn status(health: axum::extract::State<Arc<Health>>) -> Response {
    live(EngineStatus {
        ready: health.is_ready().await,
        draining: health.drain.is_cancelled(),
        full: health.door.room().is_err(),
        load: health.meter.load(&health.hub),
        watched: watched(&health.hub),
    })
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
    use headwater_api::standing::Standing;

    use super::*;

    fn health(disk_mb: u32, pulse: Pulse, told: &NodeHealthReceiver, drain: &CancellationToken) -> Health {
        let nowhere = "127.0.0.1:1".parse().unwrap();
        let (config, hub) = (headwater_api::Config::default(), Hub::new(crate::hub::Limits::default()));
        let meter = Meter::new(&config);
        Health {
            door: Admission::new(&config.limits, &meter, &hub, told, drain),
            endpoints: Endpoints {
                relay: None,
                pid: 1,
                http: nowhere,
                https: None,
                rtmp: nowhere,
                rtmps: None,
                webrtc: Vec::new(),
                health: nowhere,
            },
            drain: drain.clone(),
            relay: None,
            pulses: vec![("hub", pulse)],
            metrics: Registry::default(),
            hub,
            meter,
            told: told.clone(),
            disk: (std::env::temp_dir(), disk_mb),
        }
    }

    #[tokio::test]
    async fn only_configured_listeners_are_probed() {
        let nowhere = Some("127.0.0.1:1".parse().unwrap());
        let (told, drain) = (NodeHealthReceiver::by_nobody(), CancellationToken::new());
        let mut node = health(0, Box::new(|| Ok(())), &told, &drain);
        let checks = node.readiness().await.checks;
        assert!(["https", "rtmps", "relay"].iter().all(|check| !checks.contains_key(*check)), "{checks:?}");
        (node.endpoints.https, node.endpoints.rtmps, node.endpoints.relay) = (nowhere, nowhere, nowhere);
        let secret = headwater_wire::relay::ClusterSecret::new(b"a secret of the cluster").unwrap();
        let nobody = Arc::new(crate::cluster::Fixed::new(Vec::new()));
        node.relay = Some(Relay::new(secret, nobody, crate::gateway::relay::Timing::default()));
        let checks = node.readiness().await.checks;
        for check in ["https", "rtmps", "relay"] {
            assert!(checks[check].starts_with("does not answer: "), "{check}: {}", checks[check]);
        }
    }

    #[tokio::test]
    async fn readiness_reports_the_reason_of_each_failed_check() {
        let drain = CancellationToken::new();
        drain.cancel();
        let told = NodeHealthReceiver::by_a_daemon(&crate::hub::WallClock::default());
        let checks = [("lease".to_owned(), Some("ended".to_owned())), ("registered".to_owned(), None)];
        told.hear(Standing { checks: checks.into(), ..Standing::default() });
        let readiness = health(u32::MAX, Box::new(|| Ok(())), &told, &drain).readiness().await;
        assert!(!readiness.ready);
        for (check, expected) in [("drain", "draining"), ("hub", "ok"), ("lease", "ended"), ("registered", "ok")] {
            assert_eq!(readiness.checks[check], expected, "{check}");
        }
        assert!(readiness.checks["rtmp"].starts_with("does not answer: "), "{}", readiness.checks["rtmp"]);
        assert!(readiness.checks["disk"].ends_with("4294967295 MB are required"), "{}", readiness.checks["disk"]);
        let told = NodeHealthReceiver::by_nobody();
        let readiness =
            health(0, Box::new(|| Err("gone".to_owned())), &told, &CancellationToken::new()).readiness().await;
        assert_eq!((readiness.checks["disk"].as_str(), readiness.checks["drain"].as_str()), ("ok", "ok"));
        assert_eq!((readiness.checks["hub"].as_str(), readiness.checks.contains_key("daemon")), ("gone", false));
    }
}
