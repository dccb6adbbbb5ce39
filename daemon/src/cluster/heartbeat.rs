//! Renews the node's lease in a shared registry, and reports its load with each heartbeat.
//!
//! An unreachable registry only costs the registration: the node keeps serving, and registers
//! again, as the same incarnation, once the registry is reachable.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headwater_api::control::Endpoints;
use headwater_api::control::{EngineStatus, NodeHealth};
use headwater_api::documents::{Heartbeat, NodeDocument};
use headwater_api::error::Chain;
use headwater_registry::{DesiredState, HeartbeatInterval, Nodes as _, Registry as _, RegistryError, Store, Timing};
use tokio::sync::{Notify, watch};

use crate::boot::registration;
use crate::boot::registration::Registered;
use crate::cluster::node_health;
use crate::cluster::node_health::NodeHealthTracker;
use crate::process::engine;
use crate::process::engine::RunCommand;

/// The channels between the heartbeat and the rest of the daemon.
#[derive(Debug)]
pub(crate) struct HeartbeatChannels {
    /// The engine's listeners while it serves.
    pub endpoints_rx: watch::Receiver<Option<Endpoints>>,
    /// The engine's run command.
    pub command_rx: watch::Receiver<RunCommand>,
    /// The node's health, for the engine.
    pub health_tx: watch::Sender<NodeHealth>,
    /// Egress capacity in bits per second; 0 until it is known.
    pub capacity_rx: watch::Receiver<u64>,
    /// True while a registration may arrive at any moment.
    pub write_pending_tx: watch::Sender<bool>,
    /// The state that operators request.
    pub desired_state_tx: watch::Sender<DesiredState>,
}

/// Renews the lease until a later incarnation of this node has registered, and returns the error.
/// Never returns on a node with an embedded registry.
pub(crate) async fn run_until_superseded(registered: &Registered, mut channels: HeartbeatChannels) -> String {
    let mut health = NodeHealthTracker::new(registered.shared_store.is_some());
    let Some(store) = &registered.shared_store else { return run_standalone(health, channels).await };
    // Reasons of the current outage, each logged once; empty while the registry is reachable.
    let mut logged_reasons: Vec<String> = Vec::new();
    let mut node = registered.node.clone();
    let mut last_sent = node.clone();
    let mut interval = HeartbeatInterval::new(&Timing::default());
    loop {
        let draining = *channels.command_rx.borrow() != RunCommand::Serve;
        let endpoints = channels.endpoints_rx.borrow_and_update().clone();
        if let Some(endpoints) = &endpoints {
            // A port configured as 0 is known only to the engine.
            registration::set_open_ports(&mut node, endpoints);
        }
        let status = fetch_engine_status(endpoints.as_ref()).await;
        let needs_alternative = draining || status.as_ref().is_some_and(|status| status.full);
        let heartbeat = heartbeat_from(status, draining);
        channels.write_pending_tx.send_replace(true);
        let renewed =
            tokio::time::timeout(REQUEST_TIMEOUT, renew(store, registered, &node, &mut last_sent, &heartbeat)).await;
        channels.write_pending_tx.send_replace(false);
        let failure = match renewed {
            Ok(Ok(desired_state)) => {
                channels
                    .desired_state_tx
                    .send_if_modified(|current| std::mem::replace(current, desired_state) != desired_state);
                None
            }
            Ok(Err(e @ RegistryError::Superseded { .. })) => {
                let reason = Chain(&e).to_string();
                health.on_superseded(&reason);
                channels.health_tx.send_replace(health.report());
                return reason;
            }
            Ok(Err(e)) => Some(Chain(&e).to_string()),
            Err(_) => Some(format!("the registry does not answer within {} s", REQUEST_TIMEOUT.as_secs())),
        };
        let answered = failure.is_none();
        match failure {
            None => {
                health.on_renewed();
                if !std::mem::take(&mut logged_reasons).is_empty() {
                    log::info!("registry is reachable again");
                }
            }
            Some(reason) => {
                // The first failure may be just a broken connection.
                if !logged_reasons.contains(&reason) && logged_reasons.len() < MAX_LOGGED_REASONS {
                    log::warn!(err = reason.as_str(); "registry is unreachable, the node keeps serving");
                    logged_reasons.push(reason.clone());
                }
                health.on_renewal_failed(reason);
            }
        }
        health.on_capacity(*channels.capacity_rx.borrow());
        channels.health_tx.send_replace(health.report());
        let pause = interval.next_delay(answered, rand::random_range(0.0..1.0));
        let became_healthy = Notify::new();
        let queries = async {
            let was_healthy = health.is_healthy();
            if answered {
                query_registry(store, &mut health, &node.id, needs_alternative).await;
                channels.health_tx.send_replace(health.report());
            }
            if health.is_healthy() && !was_healthy {
                // The engine applies the report within this time, and the next heartbeat then
                // reports it ready.
                tokio::time::sleep(REPORT_DELAY).await;
                became_healthy.notify_one();
            }
        };
        // A new engine or a new run command is reported at once.
        let waiting = async {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = became_healthy.notified() => {}
                Ok(()) = channels.endpoints_rx.changed() => {}
                Ok(()) = channels.command_rx.changed() => {}
            }
        };
        // The queries run during the pause, not in addition to it. They always run to completion:
        // cancelling one costs the driver a connection.
        tokio::join!(queries, waiting);
    }
}

/// Queries what is not urgent: the registry's time, if due, and another node with free capacity, if
/// this node `needs_alternative`. A failed query of the time is repeated; without a node list no
/// alternative is reported.
async fn query_registry(store: &Store, health: &mut NodeHealthTracker, own_id: &str, needs_alternative: bool) {
    if health.needs_registry_time(unix_ms(), Instant::now()) {
        let before_ms = unix_ms();
        if let Ok(Ok(registry_ms)) = tokio::time::timeout(REQUEST_TIMEOUT, store.probe()).await {
            health.on_registry_time(before_ms, registry_ms, unix_ms());
        }
    }
    let listing =
        if needs_alternative { tokio::time::timeout(REQUEST_TIMEOUT, store.nodes()).await.ok() } else { None };
    let nodes = listing.and_then(Result::ok).unwrap_or_default();
    health.on_alternative(node_health::least_busy_edge(&nodes, own_id));
}

/// Runs on a node with an embedded registry, whose registration needs no heartbeat.
async fn run_standalone(mut health: NodeHealthTracker, mut channels: HeartbeatChannels) -> String {
    loop {
        health.on_capacity(*channels.capacity_rx.borrow_and_update());
        channels.health_tx.send_replace(health.report());
        if channels.capacity_rx.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Sends a heartbeat, and registers the node again, as the same incarnation, if the registration is
/// missing or `node` differs from `last_sent`. Returns the state that operators request.
pub(crate) async fn renew(
    store: &Store,
    registered: &Registered,
    node: &NodeDocument,
    last_sent: &mut NodeDocument,
    heartbeat: &Heartbeat,
) -> Result<DesiredState, RegistryError> {
    if *last_sent != *node {
        store.register(node, Some(registered.incarnation.epoch)).await?;
        last_sent.clone_from(node);
    }
    match store.heartbeat(&registered.incarnation, heartbeat).await {
        Err(RegistryError::NotRegistered { .. }) => {
            store.register(node, Some(registered.incarnation.epoch)).await?;
            store.heartbeat(&registered.incarnation, heartbeat).await
        }
        result => result,
    }
}

/// Fetches the engine's status; `None` if it does not answer in time.
async fn fetch_engine_status(endpoints: Option<&Endpoints>) -> Option<EngineStatus> {
    tokio::time::timeout(STATUS_TIMEOUT, engine::fetch_status(endpoints?.health)).await.ok()?
}

/// Without an answer the heartbeat reports no load.
fn heartbeat_from(status: Option<EngineStatus>, draining: bool) -> Heartbeat {
    match status {
        Some(status) => Heartbeat {
            load: status.load,
            draining: draining || status.draining,
            ready: status.ready && !draining,
            watched: status.watched,
        },
        None => Heartbeat { draining, ..Heartbeat::default() },
    }
}

/// Maximum number of reasons logged per outage.
const MAX_LOGGED_REASONS: usize = 4;
/// For one renewal or query. With the longest pause this makes nine seconds from the start of an
/// outage to `/readyz`. Two queries take no longer than that pause.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Short enough that two renewals and the longest pause between them fit into a lease even if the
/// engine hangs.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// By far enough time for the engine to apply a health report.
const REPORT_DELAY: Duration = Duration::from_millis(200);
