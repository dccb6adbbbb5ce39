//! Joins the node to its registry: the secrets of its cluster, then its registration.
//!
//! A registry that rejects what came from AWS (an address, a password, a certificate) may be
//! corrected there: everything is fetched again.

use std::time::Duration;

use headwater_api::Config;
use headwater_registry::RegistryError;
use tokio::sync::watch;

use crate::boot::error::BootError;
use crate::boot::facts::Facts;
use crate::boot::plan::Plan;
use crate::boot::registration::{self, Registered};
use crate::cluster::cluster_secrets;
use crate::process::service_manager::{ServiceManager, Signals};

/// A registered node.
#[derive(Debug)]
pub(crate) struct Joined {
    /// The engine's configuration, with the registry's address and the cluster's secrets.
    pub config: Config,
    /// The node's entry.
    pub registered: Registered,
}

/// Registers the node. Returns `None` if a signal comes first.
pub(crate) async fn join(
    plan: &Plan,
    facts: &Facts,
    signals: &mut Signals,
    manager: &mut ServiceManager,
) -> Result<Option<Joined>, BootError> {
    let (write_pending_tx, write_pending_rx) = watch::channel(false);
    // Boxed, because one of the two branches takes ownership.
    let mut joining = Box::pin(register(plan, facts, manager, &write_pending_tx));
    tokio::select! {
        joined = &mut joining => Ok(Some(joined?)),
        _ = signals.next() => {
            let registration = async { joining.await.map(|joined| joined.registered) };
            tokio::select! {
                () = registration::cancel_registration(registration, write_pending_rx, &plan.engine) => {}
                () = signals.next_kill() => {}
            }
            Ok(None)
        }
    }
}

async fn register(
    plan: &Plan,
    facts: &Facts,
    manager: &mut ServiceManager,
    write_pending_tx: &watch::Sender<bool>,
) -> Result<Joined, RegistryError> {
    let mut config = plan.engine.clone();
    let mut last_reason = String::new();
    loop {
        if let Some(cluster) = &plan.cluster {
            cluster_secrets::wait_for_cluster_secrets(cluster, &mut config, manager).await;
        }
        let node = registration::node_document(plan, &config, facts.instance.as_ref());
        let timeout = plan.cluster.as_ref().map_or(Duration::MAX, |_| cluster_secrets::random_address_timeout());
        match registration::register(node, &config, manager, write_pending_tx, &mut last_reason, timeout).await {
            Ok(registered) => return Ok(Joined { config, registered }),
            Err(e @ (RegistryError::Refused { .. } | RegistryError::Unreachable { .. })) if plan.cluster.is_some() => {
                cluster_secrets::wait_after_rejection(&e, manager, &mut last_reason).await;
                config = plan.engine.clone();
            }
            Err(e) => return Err(e),
        }
    }
}
