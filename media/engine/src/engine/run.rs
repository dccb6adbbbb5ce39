//! Runs the engine: mounts every room, starts the tasks, and waits for the end of the drain.

use std::sync::Arc;

use headwater_api::config::Listen;
use headwater_api::documents::{BootEpoch, NodeIncarnation};
use headwater_api::error::Chain;
use headwater_registry::Store;

use crate::cluster::{self, ClusterSnapshotCache};
use crate::engine::build::{Engine, Listeners};
use crate::engine::cluster_relay::ClusterRelay;
use crate::engine::{data_dir, drain};
use crate::gateway::hls::Hls;
use crate::gateway::rtmp;
use crate::http;
use crate::hub::Hub;
use crate::node::admission::Admission;
use crate::node::daemon_reports::{DaemonSocket, FailingChecks, run_daemon_reports};
use crate::node::load::LoadMeter;
use crate::runtime::client_pool::SharePolicy;
use crate::runtime::stages::Stages;
use crate::runtime::worker_pool::WorkerPool;

impl Engine {
    /// Serves until the drain has ended, at most `node.drain_ms` after its start.
    pub async fn run(self) {
        let endpoints = self.endpoints();
        let data_dir = self.config.node.data_dir.clone();
        let (node, role) = (self.config.node.id.clone(), self.config.node.role);
        let cluster = self.relay.as_ref().and_then(|relay| relay.cluster.clone());
        let mut tasks = self.mount().spawn();
        if let Err(e) = data_dir::write_endpoints(&data_dir, &endpoints) {
            log::error!(err:% = Chain(&e); "could not write the addresses of the listeners");
        }
        log::info!(
            version = env!("CARGO_PKG_VERSION"), node = node.as_str(), role = role.as_str(),
            http:% = Listen::from(endpoints.http), https:% = Listen::from(endpoints.https),
            rtmp:% = Listen::from(endpoints.rtmp), health:% = endpoints.health,
            webrtc:? = endpoints.webrtc;
            "engine serving"
        );
        tasks.join().await;
        if let Some(cluster) = cluster {
            cluster.wait_for_releases().await;
        }
        tasks.shutdown().await;
        data_dir::remove_endpoints(&data_dir);
        log::info!("engine ended");
    }

    /// Mounts every room. The health listener comes last: it reports what the others registered.
    fn mount(self) -> Stages {
        let (endpoints, deadline) = (self.endpoints(), self.drain_deadline());
        let Self {
            config,
            hub,
            access,
            policies,
            events,
            registry,
            accounts,
            listeners,
            relay: cluster_relay,
            node_health,
            daemon_socket,
            drain,
        } = self;
        let Listeners { tls, http, health, rtmp, webrtc } = listeners;
        let mut stages = Stages::new(drain, deadline, WorkerPool::start_or_inline());
        let load_meter = LoadMeter::new(&config);
        let admission = Admission::new(&config.limits, &load_meter, &hub, &node_health, &stages.drain().started);
        let snapshots = ClusterSnapshotCache::new(registry.clone());
        let relay = cluster_relay.as_ref().map(|relay| relay.client.clone());
        let hls = Hls::new(&config.hls);
        let whep = webrtc.whep();

        events.mount(&mut stages);
        if let Some(tls) = tls {
            tls.mount(&mut stages);
        }
        load_meter.mount(node_health.clone(), &mut stages);
        access.mount(policies, &mut stages);
        let services = rtmp::Services {
            hub: hub.clone(),
            access: access.clone(),
            admission: admission.clone(),
            events: events.clone(),
            stream_names: SharePolicy::new(&config).pool(config.node.max_streams.get()),
        };
        rtmp.mount(services, &mut stages);
        webrtc.mount(&mut stages);
        hls.mount(&mut stages);
        let peers = cluster_relay.and_then(|relay| mount_relay(relay, &hub, &mut stages));
        drain::mount(hub.clone(), &mut stages);
        let service = http::HttpService::new(http::AppState::new(http::AppServices {
            hub: hub.clone(),
            access,
            accounts,
            registry: registry.clone(),
            snapshots: snapshots.clone(),
            whep,
            hls,
            node_id: config.node.id.clone(),
            endpoints: endpoints.clone(),
            admission: admission.clone(),
            peers,
        }));
        http.mount(service, &hub, &mut stages);
        let shared_snapshots = matches!(registry, Store::MongoDb(_)).then(|| snapshots.clone());
        let peer_relays = http::RelayRoutes {
            node_id: config.node.id.clone(),
            snapshots,
            relay: relay.clone(),
            fixed: config.relay.origins.clone(),
        };
        let (metrics, liveness) = stages.take_observability();
        let health_service = Arc::new(http::HealthService {
            endpoints,
            role: config.node.role,
            has_fixed_origins: !config.relay.origins.is_empty(),
            snapshots: shared_snapshots,
            drain: stages.drain().started.clone(),
            relay,
            liveness_checks: liveness,
            metrics,
            hub,
            load_meter,
            admission,
            node_health,
            disk: http::DiskCheck::new(config.node.data_dir.clone(), config.limits.min_free_mb),
            probes: http::ProbeCache::default(),
        });
        health_service.mount(health, peer_relays, &mut stages);
        mount_daemon_reports(daemon_socket, &health_service, &mut stages);
        if let Some(epoch) = config.node.boot_epoch.filter(|_| matches!(registry, Store::Embedded(_))) {
            let incarnation = NodeIncarnation { node: config.node.id.clone(), epoch: BootEpoch(epoch) };
            mount_standalone_heartbeat(registry, incarnation, health_service, &mut stages);
        }
        stages
    }
}

/// Adds the relay, and the cluster behind it, whose other nodes it returns.
fn mount_relay(relay: ClusterRelay, hub: &Hub, stages: &mut Stages) -> Option<Arc<dyn http::PeerStatus>> {
    relay.server.mount(hub.clone(), relay.client, stages);
    let cluster = relay.cluster?;
    cluster.clone().mount(stages);
    Some(Arc::new(cluster))
}

/// Adds the reports that the daemon supervises the engine by; without a daemon there are none.
fn mount_daemon_reports(socket: Option<DaemonSocket>, health_service: &Arc<http::HealthService>, stages: &mut Stages) {
    let Some(socket) = socket else { return };
    let (endpoints, health) = (health_service.endpoints.clone(), Arc::clone(health_service));
    let failing_checks = move || -> FailingChecks {
        let health = Arc::clone(&health);
        Box::pin(async move { health.failing_own_checks().await })
    };
    stages.add_background(run_daemon_reports(socket, endpoints, failing_checks));
}

/// Adds the heartbeat of a node with its own registry. The daemon cannot send it, because the
/// engine keeps that registry locked.
fn mount_standalone_heartbeat(
    registry: Store,
    incarnation: NodeIncarnation,
    health_service: Arc<http::HealthService>,
    stages: &mut Stages,
) {
    let (hub, load_meter) = (health_service.hub.clone(), health_service.load_meter.clone());
    let is_ready = move || -> cluster::ReadyFuture {
        let health = Arc::clone(&health_service);
        Box::pin(async move { health.is_ready().await })
    };
    let started = stages.drain().started.clone();
    stages.add_background(cluster::run_standalone_heartbeat(registry, incarnation, hub, load_meter, started, is_ready));
}
