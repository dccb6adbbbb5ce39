//! Renews the node's lease in a shared registry, and reports its load with each heartbeat.
//!
//! An unreachable registry only costs the registration: the node keeps serving, and registers
//! again, as the same incarnation, once the registry is reachable.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headwater_api::endpoints::Endpoints;
use headwater_api::error::Chain;
use headwater_api::node::{Heartbeat, NodeDocument};
use headwater_api::standing::Standing;
use headwater_api::status::EngineStatus;
use headwater_registry::{HeartbeatInterval, Registry as _, RegistryError, Store, Timing, Wish};
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
    pub health_tx: watch::Sender<Standing>,
    /// Egress capacity in bits per second; 0 until it is known.
    pub capacity_rx: watch::Receiver<u64>,
    /// True while a registration may arrive at any moment.
    pub write_pending_tx: watch::Sender<bool>,
    /// The state that operators request.
    pub desired_state_tx: watch::Sender<Wish>,
}

/// Renews the lease until a later incarnation of this node has registered, and returns the error.
/// Never returns on a node with an embedded registry.
pub(crate) async fn run_until_superseded(registered: &Registered, mut ears: HeartbeatChannels) -> String {
    let mut outlook = NodeHealthTracker::new(registered.shared_store.is_some());
    let Some(store) = &registered.shared_store else { return run_standalone(outlook, ears).await };
    // Reasons of the current outage, each logged once; empty while the registry is reachable.
    let mut reasons: Vec<String> = Vec::new();
    let mut node = registered.node.clone();
    let mut said = node.clone();
    let mut pace = HeartbeatInterval::new(&Timing::default());
    loop {
        let draining = *ears.command_rx.borrow() != RunCommand::Serve;
        let engine = ears.endpoints_rx.borrow_and_update().clone();
        if let Some(engine) = &engine {
            // A port configured as 0 is known only to the engine.
            registration::set_open_ports(&mut node, engine);
        }
        let status = fetch_engine_status(engine.as_ref()).await;
        let wants_help = draining || status.as_ref().is_some_and(|status| status.full);
        let beat = heartbeat_from(status, draining);
        ears.write_pending_tx.send_replace(true);
        let renewed = tokio::time::timeout(REQUEST_TIMEOUT, renew(store, registered, &node, &mut said, &beat)).await;
        ears.write_pending_tx.send_replace(false);
        let trouble = match renewed {
            Ok(Ok(wish)) => {
                ears.desired_state_tx.send_if_modified(|known| std::mem::replace(known, wish) != wish);
                None
            }
            Ok(Err(e @ RegistryError::Superseded { .. })) => {
                let why = Chain(&e).to_string();
                outlook.on_superseded(&why);
                ears.health_tx.send_replace(outlook.report());
                return why;
            }
            Ok(Err(e)) => Some(Chain(&e).to_string()),
            Err(_) => Some(format!("the registry does not answer within {} s", REQUEST_TIMEOUT.as_secs())),
        };
        let answered = trouble.is_none();
        match trouble {
            None => {
                outlook.on_renewed();
                if !std::mem::take(&mut reasons).is_empty() {
                    log::info!("registry is back");
                }
            }
            Some(why) => {
                // The first failure may be just a broken connection.
                if !reasons.contains(&why) && reasons.len() < MAX_LOGGED_FAILURES {
                    log::warn!(err = why.as_str(); "registry is away, the node serves on");
                    reasons.push(why.clone());
                }
                outlook.on_renewal_failed(why);
            }
        }
        outlook.on_capacity(*ears.capacity_rx.borrow());
        ears.health_tx.send_replace(outlook.report());
        let pause = pace.after(answered, rand::random_range(0.0..1.0));
        let heard = Notify::new();
        let asking = async {
            let was_well = outlook.is_healthy();
            if answered {
                query_registry(store, &mut outlook, &node.id, wants_help).await;
                ears.health_tx.send_replace(outlook.report());
            }
            if outlook.is_healthy() && !was_well {
                // The engine applies the report within this time, and the next heartbeat then
                // reports it ready.
                tokio::time::sleep(REPORT_DELAY).await;
                heard.notify_one();
            }
        };
        // A new engine or a new run command is reported at once.
        let pausing = async {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = heard.notified() => {}
                Ok(()) = ears.endpoints_rx.changed() => {}
                Ok(()) = ears.command_rx.changed() => {}
            }
        };
        // The queries run during the pause, not in addition to it. They always run to completion:
        // cancelling one costs the driver a connection.
        tokio::join!(asking, pausing);
    }
}

/// Queries what is not urgent: the registry's time, if due, and another node with free capacity, if
/// this node `needs_alternative`. A failed query changes nothing.
async fn query_registry(store: &Store, outlook: &mut NodeHealthTracker, us: &str, wants_help: bool) {
    if outlook.needs_registry_time(unix_ms(), Instant::now()) {
        let before_ms = unix_ms();
        if let Ok(Ok(theirs_ms)) = tokio::time::timeout(REQUEST_TIMEOUT, store.probe()).await {
            outlook.on_registry_time(before_ms, theirs_ms, unix_ms());
        }
    }
    let listed = if wants_help { tokio::time::timeout(REQUEST_TIMEOUT, store.nodes()).await.ok() } else { None };
    let nodes = listed.and_then(Result::ok).unwrap_or_default();
    outlook.on_alternative(node_health::least_busy_edge(&nodes, us));
}

/// Runs on a node with an embedded registry, whose registration needs no heartbeat.
async fn run_standalone(mut outlook: NodeHealthTracker, mut ears: HeartbeatChannels) -> String {
    loop {
        outlook.on_capacity(*ears.capacity_rx.borrow_and_update());
        ears.health_tx.send_replace(outlook.report());
        if ears.capacity_rx.changed().await.is_err() {
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
    said: &mut NodeDocument,
    beat: &Heartbeat,
) -> Result<Wish, RegistryError> {
    if *said != *node {
        store.register(node, Some(registered.incarnation.epoch)).await?;
        said.clone_from(node);
    }
    match store.heartbeat(&registered.incarnation, beat).await {
        Err(RegistryError::NotRegistered { .. }) => {
            store.register(node, Some(registered.incarnation.epoch)).await?;
            store.heartbeat(&registered.incarnation, beat).await
        }
        result => result,
    }
}

/// Fetches the engine's status; `None` if it does not answer in time.
async fn fetch_engine_status(engine: Option<&Endpoints>) -> Option<EngineStatus> {
    tokio::time::timeout(STATUS_TIMEOUT, engine::fetch_status(engine?.health)).await.ok()?
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
const MAX_LOGGED_FAILURES: usize = 4;
/// For one renewal or query. With the longest pause this makes nine seconds from the start of an
/// outage to `/readyz`. Two queries take no longer than that pause.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Short enough that two renewals and the longest pause between them fit into a lease even if the
/// engine hangs.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// By far enough time for the engine to apply a health report.
const REPORT_DELAY: Duration = Duration::from_millis(200);
