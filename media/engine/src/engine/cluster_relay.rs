//! The part of the engine that only a node in a cluster has: the relay, and the cluster behind it.

use std::sync::Arc;

use headwater_api::Config;
use headwater_registry::{Store, Timing};

use crate::cluster::{Cluster, Identity, StaticResolver};
use crate::engine::error::StartError;
use crate::gateway::relay::{self, StreamResolver};
use crate::hub::{Hub, StreamOwnership};

/// The relay of a node in a cluster.
#[derive(Debug)]
pub(super) struct ClusterRelay {
    pub(super) server: relay::Server,
    pub(super) client: relay::RelayClient,
    pub(super) cluster: Option<Cluster<Store>>,
}

/// Opens the relay if a cluster secret is configured.
pub(super) fn open_relay(config: &Config, hub: &Hub, registry: &Store) -> Result<Option<ClusterRelay>, StartError> {
    let Some(file) = &config.relay.secret_file else { return Ok(None) };
    let secret = relay::read_secret(file)?;
    let server = relay::Server::bind(&config.relay)?;
    let uses_registry = config.relay.origins.is_empty() && matches!(registry, Store::MongoDb(_));
    let identity = Identity::from_config(&config.node, server.local_addr());
    let server = server.with_incarnation(&identity.incarnation);
    let ownership_probe = relay::RelayProbe::new(secret.clone(), relay::Timing::default().connect_timeout);
    let cluster =
        uses_registry.then(|| Cluster::new(registry.clone(), identity, Box::new(ownership_probe), Timing::default()));
    let resolver: Arc<dyn StreamResolver> = match &cluster {
        Some(cluster) => Arc::new(cluster.clone()),
        None => Arc::new(StaticResolver::new(config.relay.origins.clone())),
    };
    let client = relay::RelayClient::new(secret, resolver, relay::Timing::default());
    hub.join_cluster(
        Box::new(client.clone()),
        cluster.clone().map(|cluster| Box::new(cluster) as Box<dyn StreamOwnership>),
    );
    Ok(Some(ClusterRelay { server, client, cluster }))
}
