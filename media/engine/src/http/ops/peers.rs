//! `/relays` on the health listener: checks whether this node can reach the relays of its peers,
//! and whether both know the cluster secret. For `headwaterd doctor`.

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use axum::routing::get;
use headwater_api::control::RelayStatus;
use headwater_registry::Store;
use tokio::task::JoinSet;

use crate::cluster::ClusterSnapshotCache;
use crate::gateway::relay::RelayClient;
use crate::http::rest::json::uncached_json;

/// The state of the `/relays` route.
#[derive(Debug, Clone)]
pub struct RelayRoutes {
    /// Id of this node, which is not probed.
    pub node_id: String,
    /// The nodes of the cluster.
    pub snapshots: ClusterSnapshotCache<Store>,
    /// The relay client; `None` on a node without a cluster secret.
    pub relay: Option<RelayClient>,
    /// Relay addresses of the configuration (`relay.origins`), used instead of a registry.
    pub fixed: Vec<std::net::SocketAddr>,
}

impl RelayRoutes {
    /// The `/relays` route.
    pub fn router(self) -> Router {
        Router::new().route("/relays", get(relays)).with_state(self)
    }

    /// Probes the preferred relay address of each peer, concurrently.
    async fn probe_all(&self) -> Vec<RelayStatus> {
        let Some(relay) = &self.relay else { return Vec::new() };
        let cached = self.snapshots.get().await;
        let nodes = cached.snapshot.iter().flat_map(|cluster| &cluster.nodes);
        let peers = nodes.filter(|n| n.alive && n.node.id != self.node_id);
        let known = peers.filter_map(|n| Some((n.node.id.clone(), *n.node.relay.first()?)));
        let fixed = self.fixed.iter().map(|address| ("named in the file".to_owned(), *address));
        let mut probes = JoinSet::new();
        for (node, address) in fixed.chain(known).take(MAX_PROBED) {
            let relay = relay.clone();
            probes
                .spawn(async move { RelayStatus { node, address, err: relay.check_connection(address).await.err() } });
        }
        let mut all = probes.join_all().await;
        all.sort_by(|a, b| a.node.cmp(&b.node));
        all
    }
}

async fn relays(Extract(relays): Extract<RelayRoutes>) -> Response {
    uncached_json(relays.probe_all().await)
}

/// Maximum number of nodes that are probed for one response.
const MAX_PROBED: usize = 50;
