//! The life of a registry node, from its plan to its end: secrets, database, replica set, entry, drain. It has no engine.
//!
//! ```text
//! secrets -> mongod -> member of the set -> entered (a write reached the majority) -> ready
//!         -> drain: another takes over, entry removed, mongod ended in order, hook passed
//! ```

use std::path::PathBuf;
use std::time::{Duration, Instant};

use headwater_api::Config;
use headwater_api::error::Chain;
use tokio::sync::watch;

use crate::asg::{Group, State};
use crate::aws::{Aws, AwsError, Secret};
use crate::boot::{self, BootError, Ending};
use crate::engine::Order;
use crate::facts::Facts;
use crate::imds::Imds;
use crate::lifecycle::{ServiceManager, Signals};
use crate::mongod::{Entry, Keeper, Keys, Known, Layout, Mongod, Place, TooShort, step_aside};
use crate::plan::{Cluster, Plan};
use crate::register::{self, Registered};
use crate::shared_registry::{self, Login, SharedRegistryError};
use crate::{join, notice};

/// Runs the node until it is told to end.
pub(crate) async fn run(
    plan: &Plan,
    facts: &Facts,
    imds: Option<&mut Imds>,
    signals: &mut Signals,
    manager: &mut ServiceManager,
    started: Instant,
) -> Result<Ending, BootError> {
    let (Some(cluster), Some(listen), Some(instance)) = (&plan.cluster, plan.mongod, &facts.instance) else {
        return Ok(Ending::Over);
    };
    let layout = Layout::new(&plan.engine.node.data_dir, listen, cluster.replica_set());
    let (keys, login) = tokio::select! {
        told = until_told(cluster, &plan.engine, manager) => told,
        _ = signals.next() => {
            log::info!("headwaterd ended before it had its secrets");
            return Ok(Ending::Over);
        }
    };
    let mongod = Mongod::prepare(&plan.engine.mongod.program, &layout, &keys)?;
    let (orders, told) = watch::channel(Order::Serve);
    let (logins, login) = watch::channel(login);
    let (knows, mut known) = watch::channel(Known::nothing());
    let (enters, entered) = watch::channel(None);
    let (readies, mut ready) = watch::channel(false);
    let (loses, mut lost) = watch::channel(String::new());
    let (phase, phases) = watch::channel(State::Starting);
    let group = Group::of(plan).await;
    let mut keeper = Keeper::new(cluster, &instance.id, &layout, &keys, login.clone()).await?;
    let node = register::document(plan, &plan.engine, Some(instance));
    let mut entry =
        Entry { node, layout: layout.clone(), known: known.clone(), logins: login, entered: enters, ready: readies };

    let service = mongod.run(told, |why| drop(loses.send_replace(why.to_owned())));
    let (kept, superseded) = (keeper.run(knows), entry.until_superseded());
    let accompany = group.accompany(phases);
    let (unwanted, renewed) = (notice::until_unwanted(imds), follow_login(cluster, logins));
    let farewell = farewell(&layout, &keys, &entered, &plan.engine);
    tokio::pin!(service, kept, superseded, accompany, unwanted, renewed, farewell);
    let (mut wish, mut warm) = (Order::Serve, false);
    loop {
        let serving = wish == Order::Serve;
        tokio::select! {
            () = &mut service => break,
            signal = signals.next() => {
                wish = boot::obey(signal, wish, manager);
                if wish == Order::Kill {
                    orders.send_replace(Order::Kill);
                }
            }
            why = &mut superseded, if serving => {
                log::error!(err = why.as_str(); "another life of this node has taken over, draining");
                wish = Order::Drain;
            }
            leave = &mut unwanted, if serving => {
                log::info!(err = leave.why.as_str(); "draining");
                warm = leave.warm;
                manager.draining(warm);
                phase.send_replace(State::Draining);
                wish = Order::Drain;
            }
            () = &mut farewell, if wish == Order::Drain && *orders.borrow() == Order::Serve => {
                orders.send_replace(Order::Drain);
            }
            Ok(()) = ready.changed(), if serving => {
                let state = if *ready.borrow_and_update() { State::Ready } else { State::Starting };
                // Told with every renewal; a change is said once.
                let before = phase.send_replace(state);
                if state == State::Ready {
                    if before != state {
                        log::info!(elapsed_ms = started.elapsed().as_millis(), peer = layout.host(); "node ready");
                    }
                    manager.serving(&format!("serving: registry at {}", layout.host()));
                }
            }
            Ok(()) = known.changed(), if serving => {
                if let Place::Outside(why) = &known.borrow_and_update().place {
                    manager.status(&format!("out of service: {why}"));
                }
            }
            Ok(()) = lost.changed(), if serving => manager.status(&format!("out of service: {}", *lost.borrow_and_update())),
            () = &mut kept, if serving => {}
            () = &mut renewed, if serving => {}
            () = &mut accompany => {}
        }
    }
    if *phase.borrow() == State::Draining {
        tokio::select! {
            () = group.leave() => {}
            () = signals.next_kill() => log::warn!("told again to end at once, while taking leave"),
        }
    }
    if warm && !signals.told() {
        return Ok(Ending::Warm);
    }
    log::info!("headwaterd ended");
    Ok(Ending::Over)
}

/// Why there are no secrets yet.
#[derive(Debug, thiserror::Error)]
enum SecretError {
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error(transparent)]
    Login(#[from] SharedRegistryError),
    #[error(transparent)]
    TooShort(#[from] TooShort),
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
}

/// Waits until the cluster's secrets can be had. Out of service until then.
async fn until_told(cluster: &Cluster, config: &Config, manager: &ServiceManager) -> (Keys, Login) {
    let aws = Aws::in_region(&cluster.region).await;
    join::until(manager, async || {
        // What the operator wrote into the file wins.
        let secret = match &config.relay.secret_file {
            Some(path) => Secret::new(
                std::fs::read_to_string(path).map_err(|source| SecretError::Read { path: path.clone(), source })?,
            ),
            None => aws.fetch_secret(&join::relay_secret_name(cluster)).await?,
        };
        let keys = Keys::derive(&secret, &cluster.name)?;
        Ok::<_, SecretError>((keys, shared_registry::fetch_login(&aws, cluster).await?))
    })
    .await
}

/// Keeps the login as its secret says, which may be changed at any time. Never ends.
async fn follow_login(cluster: &Cluster, logins: watch::Sender<Login>) {
    let aws = Aws::in_region(&cluster.region).await;
    let mut well = true;
    loop {
        tokio::time::sleep(LOGIN).await;
        let fetched = shared_registry::fetch_login(&aws, cluster).await;
        match &fetched {
            Err(e) if well => log::warn!(err:% = Chain(e); "the registry's secret cannot be read any more"),
            Ok(login) => {
                let changed = logins.send_if_modified(|known| {
                    let changed = known != login;
                    known.clone_from(login);
                    changed
                });
                if changed {
                    log::info!("the registry's secret has changed");
                }
            }
            Err(_) => {}
        }
        well = fetched.is_ok();
    }
}

/// What is to be done before the database ends: another one takes over, and the entry is removed.
async fn farewell(layout: &Layout, keys: &Keys, entered: &watch::Receiver<Option<Registered>>, config: &Config) {
    step_aside(layout, keys).await;
    let registered = entered.borrow().clone();
    if let Some(registered) = registered {
        register::take_leave(&registered, config, FAREWELL).await;
    }
}

/// A changed password is noticed so late.
const LOGIN: Duration = Duration::from_secs(60);
/// Leaving may have to wait for the next primary.
const FAREWELL: Duration = Duration::from_secs(10);
