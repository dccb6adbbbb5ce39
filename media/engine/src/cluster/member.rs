//! The handle to the cluster, and the task that renews what this node holds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_api::config;
use headwater_api::error::Chain;
use headwater_api::node::{BootEpoch, Life};
use headwater_registry::{Pace, Registry, Timing};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claims::Claims;
use super::group::Groups;
use super::lookup::Lookups;
use crate::gateway::relay::AskOwner;

/// Who this node is for the others.
#[derive(Debug, Clone)]
pub struct Identity {
    /// In whose name streams are claimed.
    pub life: Life,
    /// Where others reach its relay, best first.
    pub relay: Vec<SocketAddr>,
}

/// A member of the cluster; clones share it.
#[derive(Debug)]
pub struct Cluster<R>(pub(super) Arc<Inner<R>>);

#[derive(Debug)]
pub(super) struct Inner<R> {
    pub(super) registry: R,
    pub(super) identity: Identity,
    pub(super) claims: Claims,
    pub(super) lookups: Lookups,
    pub(super) groups: Groups,
    /// Asks nodes that are said to own a stream.
    pub(super) owners: Box<dyn AskOwner>,
    /// Streams being let go of.
    pub(super) releases: TaskTracker,
    timing: Timing,
}

impl<R> Clone for Cluster<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    /// Holds nothing yet. `owners` asks other nodes, `timing` is the registry's.
    pub fn new(registry: R, identity: Identity, owners: Box<dyn AskOwner>, timing: Timing) -> Self {
        Self(Arc::new(Inner {
            registry,
            identity,
            claims: Claims::default(),
            lookups: Lookups::default(),
            groups: Groups::default(),
            owners,
            releases: TaskTracker::new(),
            timing,
        }))
    }

    /// Waits until what has ended here is let go of, a moment at most. The engine must not end before: it would take the
    /// connections to the registry away from under the last words.
    pub async fn settle(&self) {
        self.0.releases.close();
        let _ = tokio::time::timeout(FAREWELL, self.0.releases.wait()).await;
    }

    /// Renews leases until `drain` is cancelled, then lets go of what is still held.
    pub async fn run(self, drain: CancellationToken) {
        let mut pace = Pace::new(&self.0.timing);
        let mut away = false;
        let mut pause = pace.first(rand::random_range(0.0..1.0));
        loop {
            tokio::select! {
                () = drain.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            let renewed = self.renew_all().await;
            if renewed.is_err() != away {
                away = renewed.is_err();
                match &renewed {
                    Ok(()) => log::info!("registry is back"),
                    Err(e) => log::warn!(err:% = Chain(e); "registry is away, streams go on"),
                }
            }
            pause = pace.after(!away, rand::random_range(0.0..1.0));
        }
        // Publishers are told to go by their gateways; what they leave behind is let go here, so that another node may have it.
        let _ = tokio::time::timeout(FAREWELL, self.release_all()).await;
    }
}

const FAREWELL: Duration = Duration::from_secs(2);

impl Identity {
    /// As the configuration says it. Private addresses come first: the relay's traffic stays inside the network. `relay`
    /// is where it listens.
    pub fn of(node: &config::Node, relay: SocketAddr) -> Self {
        let mut addresses = if node.addresses.is_empty() { vec![relay.ip()] } else { node.addresses.clone() };
        addresses.sort_by_key(|ip| !is_private(*ip));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = node.boot_epoch.unwrap_or_else(|| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        Self {
            life: Life { node: node.id.clone(), epoch: BootEpoch(epoch) },
            relay: addresses.into_iter().map(|ip| SocketAddr::new(ip, relay.port())).collect(),
        }
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
    }
}
