//! Renews the node's entry in a shared registry, and tells with it how busy the node is.
//!
//! A registry that is away costs nothing but the entry: the node serves on, and enters itself again, as the same life, when
//! the registry is back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headwater_api::endpoints::Endpoints;
use headwater_api::error::Chain;
use headwater_api::node::{Heartbeat, NodeDocument};
use headwater_api::standing::Standing;
use headwater_api::status::EngineStatus;
use headwater_registry::{Pace, Registry as _, RegistryError, Store, Timing, Wish};
use tokio::sync::{Notify, watch};

use crate::engine::{self, Order};
use crate::register::{self, Registered};
use crate::standing::{self, Outlook};

/// What the daemon tells others meanwhile, and hears from them.
#[derive(Debug)]
pub(crate) struct Ears {
    /// Where the engine listens while it serves.
    pub engines: watch::Receiver<Option<Endpoints>>,
    /// What it is ordered to do.
    pub orders: watch::Receiver<Order>,
    /// How the node stands, for the engine.
    pub standing: watch::Sender<Standing>,
    /// What the machine can send, in bits a second, once that is known.
    pub capacity_bps: watch::Receiver<u64>,
    /// True while the entry is being written.
    pub writing: watch::Sender<bool>,
    /// What operators want of the node.
    pub wish: watch::Sender<Wish>,
}

/// Renews the entry until a later life of this node has registered; says so then. Never ends on a node with a registry of
/// its own.
pub(crate) async fn until_superseded(registered: &Registered, mut ears: Ears) -> String {
    let mut outlook = Outlook::new(registered.shared.is_some());
    let Some(store) = &registered.shared else { return alone(outlook, ears).await };
    // Why it is away, each reason once; empty while it is not.
    let mut reasons: Vec<String> = Vec::new();
    let mut node = registered.node.clone();
    let mut said = node.clone();
    let mut pace = Pace::new(&Timing::default());
    loop {
        let draining = *ears.orders.borrow() != Order::Serve;
        let engine = ears.engines.borrow_and_update().clone();
        if let Some(engine) = &engine {
            // With port 0 in the file only the engine knows.
            register::complete(&mut node, engine);
        }
        let status = status_of(engine.as_ref()).await;
        let wants_help = draining || status.as_ref().is_some_and(|status| status.full);
        let beat = beat_of(status, draining);
        ears.writing.send_replace(true);
        let renewed = tokio::time::timeout(PATIENCE, renew(store, registered, &node, &mut said, &beat)).await;
        ears.writing.send_replace(false);
        let trouble = match renewed {
            Ok(Ok(wish)) => {
                ears.wish.send_if_modified(|known| std::mem::replace(known, wish) != wish);
                None
            }
            Ok(Err(e @ RegistryError::Superseded { .. })) => {
                let why = Chain(&e).to_string();
                outlook.on_superseded(&why);
                ears.standing.send_replace(outlook.standing());
                return why;
            }
            Ok(Err(e)) => Some(Chain(&e).to_string()),
            Err(_) => Some(format!("the registry does not answer within {} s", PATIENCE.as_secs())),
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
                // The first may be no more than a connection that broke.
                if !reasons.contains(&why) && reasons.len() < MAX_REASONS {
                    log::warn!(err = why.as_str(); "registry is away, the node serves on");
                    reasons.push(why.clone());
                }
                outlook.on_refused(why);
            }
        }
        outlook.on_capacity(*ears.capacity_bps.borrow());
        ears.standing.send_replace(outlook.standing());
        let pause = pace.after(answered, rand::random_range(0.0..1.0));
        let heard = Notify::new();
        let asking = async {
            let was_well = outlook.is_well();
            if answered {
                ask(store, &mut outlook, &node.id, wants_help).await;
                ears.standing.send_replace(outlook.standing());
            }
            if outlook.is_well() && !was_well {
                // The engine hears it in a moment, and others are to hear of that.
                tokio::time::sleep(HEARD).await;
                heard.notify_one();
            }
        };
        // A new engine, or an order to end, is told at once.
        let pausing = async {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = heard.notified() => {}
                Ok(()) = ears.engines.changed() => {}
                Ok(()) = ears.orders.changed() => {}
            }
        };
        // Questions take nothing from the time between two renewals. They are waited for all the same: one that is dropped half-way costs
        // the driver a connection.
        tokio::join!(asking, pausing);
    }
}

/// Asks the registry what the node need not know at once: its time, if that is due, and who else has room, if this node `wants_help`.
/// What is not answered says nothing.
async fn ask(store: &Store, outlook: &mut Outlook, us: &str, wants_help: bool) {
    if outlook.wants_clock(unix_ms(), Instant::now()) {
        let before_ms = unix_ms();
        if let Ok(Ok(theirs_ms)) = tokio::time::timeout(PATIENCE, store.probe()).await {
            outlook.on_clock(before_ms, theirs_ms, unix_ms());
        }
    }
    let listed = if wants_help { tokio::time::timeout(PATIENCE, store.nodes()).await.ok() } else { None };
    let nodes = listed.and_then(Result::ok).unwrap_or_default();
    outlook.on_elsewhere(standing::elsewhere(&nodes, us));
}

/// A node with a registry of its own is in it: it has opened the file.
async fn alone(mut outlook: Outlook, mut ears: Ears) -> String {
    loop {
        outlook.on_capacity(*ears.capacity_bps.borrow_and_update());
        ears.standing.send_replace(outlook.standing());
        if ears.capacity_bps.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Tells the registry `beat`, and enters the node again, as the same life, if its entry is gone or `node` is not what it `said`. Gives what
/// operators want of it.
pub(crate) async fn renew(
    store: &Store,
    registered: &Registered,
    node: &NodeDocument,
    said: &mut NodeDocument,
    beat: &Heartbeat,
) -> Result<Wish, RegistryError> {
    if *said != *node {
        store.register(node, Some(registered.life.epoch)).await?;
        said.clone_from(node);
    }
    match store.heartbeat(&registered.life, beat).await {
        Err(RegistryError::NotRegistered { .. }) => {
            store.register(node, Some(registered.life.epoch)).await?;
            store.heartbeat(&registered.life, beat).await
        }
        result => result,
    }
}

/// What the engine says of itself.
async fn status_of(engine: Option<&Endpoints>) -> Option<EngineStatus> {
    tokio::time::timeout(STATUS_PATIENCE, engine::fetch_status(engine?.health)).await.ok()?
}

/// An engine that does not answer carries nothing that anybody should count on.
fn beat_of(status: Option<EngineStatus>, draining: bool) -> Heartbeat {
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

/// Told of one outage at most.
const MAX_REASONS: usize = 4;
/// For one renewal or question. With the longest pause this makes nine seconds from a registry that falls silent to `/readyz`. Two
/// questions take no longer than that pause.
const PATIENCE: Duration = Duration::from_secs(3);
/// For an engine that hangs: with two renewals and the longest pause between them this is less than a lease.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);
/// What the engine is told it has taken in after so long, by far.
const HEARD: Duration = Duration::from_millis(200);
