//! `/relays` on the health listener: can this node reach the others' relays, and do both know the secret? For `headwaterd doctor`.

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use axum::routing::get;
use headwater_api::status::RelayStatus;
use headwater_registry::Store;
use tokio::task::JoinSet;

use super::rest::live;
use crate::cluster::View;
use crate::gateway::relay::Relay;

/// What is needed to try.
#[derive(Debug, Clone)]
pub struct Relays {
    /// This node's name: it need not greet itself.
    pub node_id: String,
    /// The other nodes.
    pub view: View<Store>,
    /// Who greets them; `None` on a node without a cluster.
    pub relay: Option<Relay>,
    /// Relays that the file names in place of a registry.
    pub fixed: Vec<std::net::SocketAddr>,
}

impl Relays {
    /// The one path.
    pub fn router(self) -> Router {
        Router::new().route("/relays", get(relays)).with_state(self)
    }

    /// Greets each node at its best address, all at once.
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

/// Nodes greeted for one answer.
const MAX_GREETED: usize = 50;
