//! This node's membership in the cluster, and the task that renews its claims.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_api::config;
use headwater_api::documents::{BootEpoch, NodeIncarnation};
use headwater_api::error::Chain;
use headwater_registry::{HeartbeatInterval, Registry, Timing};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claim_table::ClaimTable;
use super::lookup_cache::LookupCache;
use super::peer_caches::PeerCaches;
use super::witness_rounds::WitnessRounds;
use crate::gateway::relay::OwnershipProbe;
use crate::runtime::stages::Stages;

/// How other nodes identify and reach this node.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Streams are claimed in the name of this incarnation.
    pub incarnation: NodeIncarnation,
    /// Addresses of this node's relay, best first.
    pub relays: Vec<SocketAddr>,
}

/// This node's membership in the cluster; clones share it.
#[derive(Debug)]
pub struct Cluster<R>(pub(super) Arc<Inner<R>>);

#[derive(Debug)]
pub(super) struct Inner<R> {
    pub(super) registry: R,
    pub(super) identity: Identity,
    pub(super) claims: ClaimTable,
    pub(super) lookups: LookupCache,
    pub(super) peers: PeerCaches,
    /// Asks nodes whether they still have a stream, or for how long its owner has been silent.
    pub(super) ownership_probe: Box<dyn OwnershipProbe>,
    pub(super) witness_rounds: WitnessRounds,
    /// Releases in progress.
    pub(super) releases: TaskTracker,
    timing: Timing,
}

impl<R> Clone for Cluster<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    /// A membership without claims. `timing` is the registry's.
    pub fn new(registry: R, identity: Identity, ownership_probe: Box<dyn OwnershipProbe>, timing: Timing) -> Self {
        Self(Arc::new(Inner {
            registry,
            identity,
            claims: ClaimTable::default(),
            lookups: LookupCache::default(),
            peers: PeerCaches::default(),
            ownership_probe,
            witness_rounds: WitnessRounds::default(),
            releases: TaskTracker::new(),
            timing,
        }))
    }

    /// Waits until the claims of ended streams are released, at most two seconds. Call it before
    /// the engine exits: exiting closes the connections to the registry.
    pub async fn wait_for_releases(&self) {
        self.0.releases.close();
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, self.0.releases.wait()).await;
    }

    /// Adds the renewal of claims to the stages.
    pub fn mount(self, stages: &mut Stages) {
        let drain = stages.drain().stop_publishers.clone();
        stages.add_serving(self.run(drain));
    }

    /// Renews claims until `drain` is cancelled, then releases all of them.
    pub async fn run(self, drain: CancellationToken) {
        let mut interval = HeartbeatInterval::new(&self.0.timing);
        let mut unreachable = false;
        let mut delay = interval.initial_delay(rand::random_range(0.0..1.0));
        loop {
            tokio::select! {
                () = drain.cancelled() => break,
                () = tokio::time::sleep(delay) => {}
            }
            let renewed = self.renew_all().await;
            if renewed.is_err() != unreachable {
                unreachable = renewed.is_err();
                match &renewed {
                    Ok(()) => log::info!("registry is reachable again"),
                    Err(e) => log::warn!(err:% = Chain(e); "registry is unreachable, streams continue"),
                }
            }
            delay = interval.next_delay(!unreachable, rand::random_range(0.0..1.0));
        }
        // The gateways close the publishers; releasing their streams lets another node claim them.
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, self.release_all()).await;
    }
}

const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

impl Identity {
    /// The identity given by the configuration. Private addresses come first, so that relay traffic
    /// stays inside the network. `relay` is the address of the relay's listener.
    pub fn from_config(node: &config::Node, relay: SocketAddr) -> Self {
        let mut addresses = if node.addresses.is_empty() { vec![relay.ip()] } else { node.addresses.clone() };
        addresses.sort_by_key(|ip| !is_private(*ip));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = node.boot_epoch.unwrap_or_else(|| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        Self {
            incarnation: NodeIncarnation { node: node.id.clone(), epoch: BootEpoch(epoch) },
            relays: addresses.into_iter().map(|ip| SocketAddr::new(ip, relay.port())).collect(),
        }
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
    }
}
