//! `/relays` on the health listener: checks whether this node can reach the relays of its peers,
//! and whether both know the cluster secret. For `headwaterd doctor`.

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use axum::routing::get;
use headwater_api::status::RelayStatus;
use headwater_registry::Store;
use tokio::task::JoinSet;

use crate::cluster::View;
use crate::gateway::relay::Relay;
use crate::http::rest::live;

/// The state of the `/relays` route.
#[derive(Debug, Clone)]
pub struct Relays {
    /// Id of this node, which is not probed.
    pub node_id: String,
    /// The nodes of the cluster.
    pub view: View<Store>,
    /// The relay client; `None` on a node without a cluster secret.
    pub relay: Option<Relay>,
    /// Relay addresses of the configuration (`relay.origins`), used instead of a registry.
    pub fixed: Vec<std::net::SocketAddr>,
}

impl Relays {
    /// The `/relays` route.
    pub fn router(self) -> Router {
        Router::new().route("/relays", get(relays)).with_state(self)
    }

    /// Probes the preferred relay address of each peer, concurrently.
    async fn greet(&self) -> Vec<RelayStatus> {
        let Some(relay) = &self.relay else { return Vec::new() };
        let seen = self.view.look().await;
        let nodes = seen.cluster.iter().flat_map(|cluster| &cluster.nodes);
        let others = nodes.filter(|n| n.alive && n.node.id != self.node_id);
        let known = others.filter_map(|n| Some((n.node.id.clone(), *n.node.relay.first()?)));
        let fixed = self.fixed.iter().map(|address| ("named in the file".to_owned(), *address));
        let mut greetings = JoinSet::new();
        for (node, address) in fixed.chain(known).take(MAX_GREETED) {
            let relay = relay.clone();
            greetings.spawn(async move { RelayStatus { node, address, err: relay.greet(address).await.err() } });
        }
        let mut all = greetings.join_all().await;
        all.sort_by(|a, b| a.node.cmp(&b.node));
        all
    }
}

async fn relays(Extract(relays): Extract<Relays>) -> Response {
    live(relays.greet().await)
}

/// Maximum number of nodes that are probed for one response.
const MAX_GREETED: usize = 50;
