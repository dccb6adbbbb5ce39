//! `/livez`, `/readyz`, `/status` and `/metrics`, on a separate listener that viewers cannot reach.
//!
//! Ready means: not draining, and every check has just succeeded. Live means only that this process
//! still runs tasks. The daemon does not ask here: network peers reach this listener, and it
//! supervises the engine by the reports of `node::daemon_reports`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use headwater_api::config::Role;
use headwater_api::control::{Endpoints, EngineStatus};
use headwater_registry::Store;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::cluster::ClusterSnapshotCache;
use crate::gateway::relay::RelayClient;
use crate::http::error::{Code, Problem};
use crate::http::ops::disk_check::DiskCheck;
use crate::http::ops::health_server::HealthServer;
use crate::http::ops::peers::RelayRoutes;
use crate::http::ops::probe;
use crate::http::ops::readiness::{Checks, ProbeCache};
use crate::http::ops::role_check::{self, Upstream};
use crate::http::rest::json::uncached_json;
use crate::hub::Hub;
use crate::node::admission::Admission;
use crate::node::health::NodeHealthReceiver;
use crate::node::load::{LoadMeter, stream_viewers};
use crate::runtime::stages::{LivenessCheck, Stages};

/// The state of the health listener.
pub struct HealthService {
    /// Addresses of the listeners to probe.
    pub endpoints: Endpoints,
    /// The role of the node.
    pub role: Role,
    /// True if the configuration names the origins, so that the registry is not asked for them.
    pub has_fixed_origins: bool,
    /// The cluster, as the registry describes it; `None` without a shared registry.
    pub snapshots: Option<ClusterSnapshotCache<Store>>,
    /// Cancelled when the drain starts.
    pub drain: CancellationToken,
    /// Probes this node's own relay; `None` without one.
    pub relay: Option<RelayClient>,
    /// Checks of components without a port to probe, by name.
    pub liveness_checks: Vec<(&'static str, LivenessCheck)>,
    /// The metrics of the engine.
    pub metrics: Registry,
    /// Live streams.
    pub hub: Hub,
    /// Load of this machine.
    pub load_meter: LoadMeter,
    /// Admission of new viewers.
    pub admission: Admission,
    /// The latest health report of the daemon.
    pub node_health: NodeHealthReceiver,
    /// The check of the data folder.
    pub disk: DiskCheck,
    /// The last probes.
    pub probes: ProbeCache,
}

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Readiness {
    /// True if the node should receive traffic.
    pub ready: bool,
    /// The result of each check, by name: "ok" or the reason of the failure.
    pub checks: BTreeMap<String, String>,
}

impl HealthService {
    /// True if the node should receive traffic.
    pub async fn is_ready(self: &Arc<Self>) -> bool {
        self.readiness().await.ready
    }

    /// Adds the health listener to the stages. It serves until the drain is complete, so that the
    /// drain can be observed.
    pub fn mount(self: &Arc<Self>, server: HealthServer, peers: RelayRoutes, stages: &mut Stages) {
        let router = Arc::clone(self).router().merge(peers.router());
        stages.add_background(server.run(router));
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

    /// The failing checks of the engine's own parts, by name, with the reason. The daemon waits for
    /// them at the start; the disk, the registry, the clock and other nodes are not among them.
    pub async fn failing_own_checks(&self) -> BTreeMap<String, String> {
        let all = self.probe_listeners().await.into_iter().chain(self.check_parts());
        all.filter_map(|(name, result)| Some((name, result.err()?))).collect()
    }

    /// Probes are at most half a second old; everything else is read at once.
    async fn readiness(self: &Arc<Self>) -> Readiness {
        let this = Arc::clone(self);
        let mut all = self.probes.get(move || async move { this.probe_all().await }).await;
        let drain = if self.drain.is_cancelled() { Err("draining".to_owned()) } else { Ok(()) };
        all.extend(self.check_parts().chain([("drain".to_owned(), drain)]));
        all.extend(self.node_health.checks());
        Readiness {
            ready: all.values().all(Result::is_ok),
            checks: all
                .into_iter()
                .map(|(name, result)| (name, result.err().unwrap_or_else(|| "ok".to_owned())))
                .collect(),
        }
    }

    async fn probe_all(&self) -> Checks {
        let (mut all, disk, upstream) = tokio::join!(self.probe_listeners(), self.disk.run(), self.upstream());
        let has_relay = self.endpoints.relay.is_some() && self.relay.is_some();
        let for_role = role_check::check(self.role, has_relay, upstream);
        all.insert("disk".to_owned(), disk);
        all.extend(for_role.map(|(name, result)| (name.to_owned(), result)));
        all
    }

    async fn probe_listeners(&self) -> Checks {
        let at = &self.endpoints;
        let (http, rtmp, https, rtmps, relay) = tokio::join!(
            probe_if_open(at.http, probe::http),
            probe_if_open(at.rtmp, probe::rtmp),
            probe_if_open(at.https, probe::https),
            probe_if_open(at.rtmps, probe::rtmps),
            probe_if_open(at.relay.zip(self.relay.as_ref()), |(address, relay)| probe::relay(address, relay)),
        );
        let all = [("http", http), ("rtmp", rtmp), ("https", https), ("rtmps", rtmps), ("relay", relay)];
        all.into_iter().filter_map(|(name, result)| Some((name.to_owned(), result?))).collect()
    }

    fn check_parts(&self) -> impl Iterator<Item = (String, Result<(), String>)> {
        self.liveness_checks.iter().map(|(name, check)| ((*name).to_owned(), check()))
    }
}

impl HealthService {
    /// Where this node finds the streams of other nodes. The registry is queried only if no daemon
    /// reports about it: its checks `registered` and `lease` fail if it is unreachable.
    async fn upstream(&self) -> Upstream {
        match &self.snapshots {
            _ if self.has_fixed_origins => Upstream::Fixed,
            None => Upstream::None,
            Some(_) if self.role != Role::Edge || self.node_health.latest().is_some() => {
                Upstream::Registry { unreachable: false }
            }
            Some(snapshots) => Upstream::Registry { unreachable: snapshots.get().await.registry_unreachable },
        }
    }
}

impl std::fmt::Debug for HealthService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HealthService").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// Runs the probe if the listener is open. Boxed, because a TLS handshake adds tens of
/// kilobytes to the size of the caller's future.
async fn probe_if_open<T, F>(listener: Option<T>, probe: impl Fn(T) -> F) -> Option<Result<(), String>>
where
    F: Future<Output = Result<(), String>>,
{
    Some(Box::pin(probe(listener?)).await)
}

async fn readyz(health: axum::extract::State<Arc<HealthService>>) -> Response {
    let readiness = health.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, uncached_json(readiness)).into_response()
}

async fn status(health: axum::extract::State<Arc<HealthService>>) -> Response {
    uncached_json(EngineStatus {
        ready: health.is_ready().await,
        draining: health.drain.is_cancelled(),
        full: health.admission.check_capacity().is_err(),
        load: health.load_meter.load(&health.hub),
        watched: stream_viewers(&health.hub),
    })
}

async fn metrics(health: axum::extract::State<Arc<HealthService>>) -> Response {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &health.metrics).is_err() {
        return Problem::new(Code::Internal, "The metrics could not be written.").into_response();
    }
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use headwater_api::control::NodeHealth;

    use super::*;

    fn health(
        disk_mb: u32,
        check: LivenessCheck,
        node_health: &NodeHealthReceiver,
        drain: &CancellationToken,
    ) -> HealthService {
        let closed_port = "127.0.0.1:1".parse().unwrap();
        let (config, hub) = (headwater_api::Config::default(), Hub::new(crate::hub::Limits::default()));
        let meter = LoadMeter::new(&config);
        HealthService {
            admission: Admission::new(&config.limits, &meter, &hub, node_health, drain),
            endpoints: Endpoints {
                relay: None,
                pid: 1,
                http: Some(closed_port),
                https: None,
                self_signed_fingerprint: None,
                rtmp: Some(closed_port),
                rtmps: None,
                webrtc: Vec::new(),
                health: closed_port,
            },
            role: Role::Standalone,
            has_fixed_origins: false,
            snapshots: None,
            drain: drain.clone(),
            relay: None,
            liveness_checks: vec![("hub", check)],
            metrics: Registry::default(),
            hub,
            load_meter: meter,
            node_health: node_health.clone(),
            disk: DiskCheck::new(std::env::temp_dir(), disk_mb),
            probes: ProbeCache::default(),
        }
    }

    #[tokio::test]
    async fn only_open_listeners_are_probed() {
        let closed_port = Some("127.0.0.1:1".parse().unwrap());
        let (node_health, drain) = (NodeHealthReceiver::disconnected(), CancellationToken::new());
        let mut node = health(0, Box::new(|| Ok(())), &node_health, &drain);
        (node.endpoints.http, node.endpoints.rtmp) = (None, None);
        let checks = Arc::new(node).readiness().await.checks;
        assert!(
            ["http", "https", "rtmp", "rtmps", "relay"].iter().all(|check| !checks.contains_key(*check)),
            "{checks:?}"
        );
        let mut node = health(0, Box::new(|| Ok(())), &node_health, &drain);
        (node.endpoints.https, node.endpoints.rtmps, node.endpoints.relay) = (closed_port, closed_port, closed_port);
        let secret = headwater_wire::relay::ClusterSecret::new(b"a secret of the cluster").unwrap();
        let no_relays = Arc::new(crate::cluster::StaticResolver::new(Vec::new()));
        node.relay = Some(RelayClient::new(secret, no_relays, crate::gateway::relay::Timing::default()));
        let checks = Arc::new(node).readiness().await.checks;
        for check in ["https", "rtmps", "relay"] {
            assert!(checks[check].starts_with("does not answer: "), "{check}: {}", checks[check]);
        }
    }

    #[tokio::test]
    async fn origin_without_a_relay_and_edge_without_upstreams_are_not_ready() {
        let (node_health, drain) = (NodeHealthReceiver::disconnected(), CancellationToken::new());
        for (role, check) in [(Role::Origin, "relay"), (Role::Edge, "upstream")] {
            let node = HealthService { role, ..health(0, Box::new(|| Ok(())), &node_health, &drain) };
            let checks = Arc::new(node).readiness().await.checks;
            assert!(checks[check].contains("secret_file in [relay] is not set"), "{checks:?}");
        }
    }

    #[tokio::test]
    async fn readiness_reports_the_reason_of_each_failed_check() {
        let drain = CancellationToken::new();
        drain.cancel();
        let node_health = NodeHealthReceiver::connected(&crate::runtime::wall_clock::WallClock::default());
        let checks = [("lease".to_owned(), Some("ended".to_owned())), ("registered".to_owned(), None)];
        node_health.apply(NodeHealth { checks: checks.into(), ..NodeHealth::default() });
        let node = Arc::new(health(u32::MAX, Box::new(|| Ok(())), &node_health, &drain));
        let readiness = node.readiness().await;
        assert!(!readiness.ready);
        for (check, expected) in [("drain", "draining"), ("hub", "ok"), ("lease", "ended"), ("registered", "ok")] {
            assert_eq!(readiness.checks[check], expected, "{check}");
        }
        assert!(readiness.checks["rtmp"].starts_with("does not answer: "), "{}", readiness.checks["rtmp"]);
        assert!(readiness.checks["disk"].ends_with("4294967295 MB are required"), "{}", readiness.checks["disk"]);
        let node_health = NodeHealthReceiver::disconnected();
        let node = health(0, Box::new(|| Err("stopped".to_owned())), &node_health, &CancellationToken::new());
        let readiness = Arc::new(node).readiness().await;
        assert_eq!((readiness.checks["disk"].as_str(), readiness.checks["drain"].as_str()), ("ok", "ok"));
        assert_eq!((readiness.checks["hub"].as_str(), readiness.checks.contains_key("daemon")), ("stopped", false));
    }

    #[tokio::test]
    async fn start_does_not_depend_on_disk_drain_registry_or_daemon() {
        let drain = CancellationToken::new();
        drain.cancel();
        let node_health = NodeHealthReceiver::connected(&crate::runtime::wall_clock::WallClock::default());
        let checks = [("lease".to_owned(), Some("ended".to_owned())), ("clock".to_owned(), Some("wrong".to_owned()))];
        node_health.apply(NodeHealth { checks: checks.into(), ..NodeHealth::default() });
        let role = Role::Edge;
        let node =
            HealthService { role, ..health(u32::MAX, Box::new(|| Err("stopped".to_owned())), &node_health, &drain) };
        let failing = node.failing_own_checks().await;
        let names: Vec<_> = failing.keys().map(String::as_str).collect();
        assert_eq!(names, ["http", "hub", "rtmp"], "{failing:?}");
    }

    #[tokio::test]
    async fn drain_is_reported_at_once_although_probes_are_cached() {
        let (node_health, drain) = (NodeHealthReceiver::disconnected(), CancellationToken::new());
        let node = Arc::new(health(0, Box::new(|| Ok(())), &node_health, &drain));
        assert_eq!(node.readiness().await.checks["drain"], "ok");
        drain.cancel();
        assert_eq!(node.readiness().await.checks["drain"], "draining");
    }
}
