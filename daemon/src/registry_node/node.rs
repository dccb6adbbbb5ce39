//! Runs a registry node, from its plan to its deregistration: secrets, database, replica set,
//! registration, drain. It has no engine.
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

use crate::aws::client::{Aws, AwsError, Secret};
use crate::aws::imds::Imds;
use crate::aws::lifecycle_hooks::{ScalingGroup, LifecycleState};
use crate::aws::termination;
use crate::boot::facts::Facts;
use crate::boot::node;
use crate::boot::node::{BootError, NodeExit};
use crate::boot::plan::{Cluster, Plan};
use crate::boot::registration;
use crate::boot::registration::Registered;
use crate::cluster::cluster_secrets;
use crate::cluster::shared_registry;
use crate::cluster::shared_registry::{Login, SharedRegistryError};
use crate::process::engine::RunCommand;
use crate::process::service_manager::{ServiceManager, Signals};
use crate::registry_node::mongod::{SelfRegistration, ReplicaSetReconciler, ClusterKeys, DatabaseStatus, MongodConfig, MongodProcess, DatabaseState, SecretTooShort, step_down};

/// Runs the node until SIGTERM or SIGINT, or until Auto Scaling stops it.
pub(crate) async fn run(
    plan: &Plan,
    facts: &Facts,
    imds: Option<&mut Imds>,
    signals: &mut Signals,
    manager: &mut ServiceManager,
    started: Instant,
) -> Result<NodeExit, BootError> {
    let (Some(cluster), Some(listen), Some(instance)) = (&plan.cluster, plan.mongod, &facts.instance) else {
        return Ok(NodeExit::Stopped);
    };
    let layout = MongodConfig::new(&plan.engine.node.data_dir, listen, cluster.replica_set());
    let (keys, login) = tokio::select! {
        told = wait_for_secrets(cluster, &plan.engine, manager) => told,
        _ = signals.next() => {
            log::info!("headwaterd ended before it had its secrets");
            return Ok(NodeExit::Stopped);
        }
    };
    let mongod = MongodProcess::prepare(&plan.engine.mongod.program, &layout, &keys)?;
    let (orders, told) = watch::channel(RunCommand::Serve);
    let (logins, login) = watch::channel(login);
    let (knows, mut known) = watch::channel(DatabaseStatus::unknown());
    let (enters, entered) = watch::channel(None);
    let (readies, mut ready) = watch::channel(false);
    let (loses, mut lost) = watch::channel(String::new());
    let (phase, phases) = watch::channel(LifecycleState::Starting);
    let group = ScalingGroup::from_plan(plan).await;
    let mut keeper = ReplicaSetReconciler::new(cluster, &instance.id, &layout, &keys, login.clone()).await?;
    let node = registration::node_document(plan, &plan.engine, Some(instance));
    let mut entry =
        SelfRegistration { node, mongod_config: layout.clone(), status_rx: known.clone(), login_rx: login, registered_tx: enters, ready_tx: readies };

    let service = mongod.run(told, |why| drop(loses.send_replace(why.to_owned())));
    let (kept, superseded) = (keeper.run(knows), entry.run_until_superseded());
    let accompany = group.run(phases);
    let (unwanted, renewed) = (termination::wait_for_termination(imds), follow_login_secret(cluster, logins));
    let farewell = hand_over_and_deregister(&layout, &keys, &entered, &plan.engine);
    tokio::pin!(service, kept, superseded, accompany, unwanted, renewed, farewell);
    let (mut wish, mut warm) = (RunCommand::Serve, false);
    loop {
        let serving = wish == RunCommand::Serve;
        tokio::select! {
            () = &mut service => break,
            signal = signals.next() => {
                wish = node::on_signal(signal, wish, manager);
                if wish == RunCommand::Kill {
                    orders.send_replace(RunCommand::Kill);
                }
            }
            why = &mut superseded, if serving => {
                log::error!(err = why.as_str(); "another life of this node has taken over, draining");
                wish = RunCommand::Drain;
            }
            leave = &mut unwanted, if serving => {
                log::info!(err = leave.reason.as_str(); "draining");
                warm = leave.to_warm_pool;
                manager.draining(warm);
                phase.send_replace(LifecycleState::Draining);
                wish = RunCommand::Drain;
            }
            () = &mut farewell, if wish == RunCommand::Drain && *orders.borrow() == RunCommand::Serve => {
                orders.send_replace(RunCommand::Drain);
            }
            Ok(()) = ready.changed(), if serving => {
                let state = if *ready.borrow_and_update() { LifecycleState::Ready } else { LifecycleState::Starting };
                // Sent with every heartbeat; only a change is logged.
                let before = phase.send_replace(state);
                if state == LifecycleState::Ready {
                    if before != state {
                        log::info!(elapsed_ms = started.elapsed().as_millis(), peer = layout.host(); "node ready");
                    }
                    manager.serving(&format!("serving: registry at {}", layout.host()));
                }
            }
            Ok(()) = known.changed(), if serving => {
                if let DatabaseState::OutOfService(why) = &known.borrow_and_update().state {
                    manager.status(&format!("out of service: {why}"));
                }
            }
            Ok(()) = lost.changed(), if serving => manager.status(&format!("out of service: {}", *lost.borrow_and_update())),
            () = &mut kept, if serving => {}
            () = &mut renewed, if serving => {}
            () = &mut accompany => {}
        }
    }
    if *phase.borrow() == LifecycleState::Draining {
        tokio::select! {
            () = group.complete_termination() => {}
            () = signals.next_kill() => log::warn!("told again to end at once, while taking leave"),
        }
    }
    if warm && !signals.stop_requested() {
        return Ok(NodeExit::WarmPool);
    }
    log::info!("headwaterd ended");
    Ok(NodeExit::Stopped)
}

/// Why the cluster's secrets are not available yet.
#[derive(Debug, thiserror::Error)]
enum SecretError {
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error(transparent)]
    Login(#[from] SharedRegistryError),
    #[error(transparent)]
    TooShort(#[from] SecretTooShort),
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
}

/// Waits until the cluster's secrets are available. The node is out of service until then.
async fn wait_for_secrets(cluster: &Cluster, config: &Config, manager: &ServiceManager) -> (ClusterKeys, Login) {
    let aws = Aws::in_region(&cluster.region).await;
    cluster_secrets::retry_until_ok(manager, async || {
        // The configuration file takes precedence.
        let secret = match &config.relay.secret_file {
            Some(path) => Secret::new(
                std::fs::read_to_string(path).map_err(|source| SecretError::Read { path: path.clone(), source })?,
            ),
            None => aws.fetch_secret(&cluster_secrets::relay_secret_name(cluster)).await?,
        };
        let keys = ClusterKeys::derive(&secret, &cluster.name)?;
        Ok::<_, SecretError>((keys, shared_registry::fetch_login(&aws, cluster).await?))
    })
    .await
}

/// Keeps the login equal to its secret, which may change at any time. Never returns.
async fn follow_login_secret(cluster: &Cluster, logins: watch::Sender<Login>) {
    let aws = Aws::in_region(&cluster.region).await;
    let mut well = true;
    loop {
        tokio::time::sleep(LOGIN_REFRESH_INTERVAL).await;
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

/// The steps before the database stops: another node becomes primary, and this node is
/// deregistered.
async fn hand_over_and_deregister(layout: &MongodConfig, keys: &ClusterKeys, entered: &watch::Receiver<Option<Registered>>, config: &Config) {
    step_down(layout, keys).await;
    let registered = entered.borrow().clone();
    if let Some(registered) = registered {
        registration::deregister_within(&registered, config, DEREGISTER_TIMEOUT).await;
    }
}

/// Interval between two reads of the secret.
const LOGIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// Deregistering may have to wait for the election of the next primary.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(10);
