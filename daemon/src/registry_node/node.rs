//! Runs a registry node, from its plan to its deregistration: secrets, database, replica set,
//! registration, drain. It has no engine.
//!
//! ```text
//! secrets -> mongod -> member of the set -> entered (a write reached the majority) -> ready
//!         -> drain: another takes over, entry removed, mongod ended in order, hook passed
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use headwater_api::Config;
use headwater_api::error::Chain;
use headwater_api::secret::Secret;
use tokio::sync::watch;

use crate::aws::client::{Aws, AwsError};
use crate::aws::imds::Imds;
use crate::aws::lifecycle_hooks::{LifecycleState, ScalingGroup};
use crate::aws::termination;
use crate::boot::error::{BootError, NodeExit};
use crate::boot::facts::{Facts, Instance};
use crate::boot::plan::{Cluster, Plan};
use crate::boot::registration;
use crate::boot::registration::Registered;
use crate::boot::run_state::on_signal;
use crate::cluster::cluster_secrets;
use crate::cluster::shared_registry;
use crate::cluster::shared_registry::{Login, SharedRegistryError};
use crate::process::engine::RunCommand;
use crate::process::service_manager::{ServiceManager, Signals};
use crate::registry_node::config::MongodConfig;
use crate::registry_node::health::{HealthServer, HealthSource};
use crate::registry_node::keyfile::{ClusterKeys, SecretTooShort};
use crate::registry_node::mongod::MongodProcess;
use crate::registry_node::readiness::NodeStatus;
use crate::registry_node::reconciler::{DatabaseState, DatabaseStatus, ReplicaSetReconciler, step_down};
use crate::registry_node::registration::SelfRegistration;

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
    let health = HealthServer::bind(plan.engine.health.listen).await?;
    log::info!(health:% = health.local_addr(); "health listener open");
    let (node_tx, node_rx) = watch::channel(NodeStatus::default());
    let (status_tx, status_rx) = watch::channel(DatabaseStatus::unknown());
    let disk = (plan.engine.node.data_dir.clone(), plan.engine.limits.min_free_mb);
    let source = HealthSource { node_rx, database_rx: status_rx, disk };
    let node = RegistryNode { plan, cluster, listen, instance, node_tx, status_tx };
    let serving = Box::pin(node.serve(imds, signals, manager, started));
    tokio::select! {
        exit = serving => exit,
        never = health.run(source) => match never {},
    }
}

/// What a registry node consists of.
struct RegistryNode<'a> {
    plan: &'a Plan,
    cluster: &'a Cluster,
    /// Address of its mongod besides loopback.
    listen: SocketAddr,
    instance: &'a Instance,
    node_tx: watch::Sender<NodeStatus>,
    status_tx: watch::Sender<DatabaseStatus>,
}

impl RegistryNode<'_> {
    async fn serve(
        self,
        imds: Option<&mut Imds>,
        signals: &mut Signals,
        manager: &mut ServiceManager,
        started: Instant,
    ) -> Result<NodeExit, BootError> {
        let Self { plan, cluster, listen, instance, node_tx, status_tx } = self;
        let config = MongodConfig::new(&plan.engine.node.data_dir, listen, cluster.replica_set());
        let Some((keys, login)) = wait_for_secrets_or_signal(cluster, &plan.engine, signals, manager, &node_tx).await
        else {
            return Ok(NodeExit::Stopped);
        };
        let mongod = MongodProcess::prepare(&plan.engine.mongod.program, &config, &keys)?;
        let (command_tx, command_rx) = watch::channel(RunCommand::Serve);
        let (login_tx, login_rx) = watch::channel(login);
        let mut status_rx = status_tx.subscribe();
        let (registered_tx, registered_rx) = watch::channel(None);
        let (ready_tx, mut ready_rx) = watch::channel(false);
        let (exit_tx, mut exit_rx) = watch::channel(String::new());
        let (state_tx, state_rx) = watch::channel(LifecycleState::Starting);
        let group = ScalingGroup::from_plan(plan).await;
        let mut reconciler = ReplicaSetReconciler::new(cluster, &instance.id, &config, &keys, login_rx.clone()).await?;
        let mut self_registration = SelfRegistration {
            node: registration::node_document(plan, &plan.engine, Some(instance)),
            mongod_config: config.clone(),
            status_rx: status_rx.clone(),
            login_rx,
            registered_tx,
            ready_tx,
            node_tx: node_tx.clone(),
        };

        let mongod_run = mongod.run(command_rx, |change| {
            node_tx.send_modify(|node| node.mongod.clone_from(&change));
            if let Err(reason) = change {
                exit_tx.send_replace(reason);
            }
        });
        let (reconciliation, superseded) = (reconciler.run(status_tx), self_registration.run_until_superseded());
        let hooks = group.run(state_rx);
        let (termination_notice, login_secret) =
            (termination::wait_for_termination(imds), follow_login_secret(cluster, login_tx));
        let handover = hand_over_and_deregister(&config, &keys, &registered_rx, &plan.engine);
        tokio::pin!(mongod_run, reconciliation, superseded, hooks, termination_notice, login_secret, handover);
        let (mut command, mut to_warm_pool) = (RunCommand::Serve, false);
        loop {
            let serving = command == RunCommand::Serve;
            node_tx.send_modify(|node| node.draining = !serving);
            tokio::select! {
                () = &mut mongod_run => break,
                signal = signals.next() => {
                    command = on_signal(signal, command, manager);
                    if command == RunCommand::Kill {
                        command_tx.send_replace(RunCommand::Kill);
                    }
                }
                reason = &mut superseded, if serving => {
                    log::error!(err = reason.as_str(); "another incarnation of this node has taken over, draining");
                    command = RunCommand::Drain;
                }
                notice = &mut termination_notice, if serving => {
                    log::info!(err = notice.reason.as_str(); "draining");
                    to_warm_pool = notice.to_warm_pool;
                    manager.draining(to_warm_pool);
                    state_tx.send_replace(LifecycleState::Draining);
                    command = RunCommand::Drain;
                }
                () = &mut handover, if command == RunCommand::Drain && *command_tx.borrow() == RunCommand::Serve => {
                    command_tx.send_replace(RunCommand::Drain);
                }
                Ok(()) = ready_rx.changed(), if serving => {
                    let is_ready = *ready_rx.borrow_and_update();
                    report_readiness(is_ready, &state_tx, &config.host(), manager, started);
                }
                Ok(()) = status_rx.changed(), if serving => {
                    if let DatabaseState::OutOfService(reason) = &status_rx.borrow_and_update().state {
                        manager.status(&format!("out of service: {reason}"));
                    }
                }
                Ok(()) = exit_rx.changed(), if serving => manager.status(&format!("out of service: {}", *exit_rx.borrow_and_update())),
                () = &mut reconciliation, if serving => {}
                () = &mut login_secret, if serving => {}
                () = &mut hooks => {}
            }
        }
        let group = Some(&group).filter(|_| *state_tx.borrow() == LifecycleState::Draining);
        Ok(finish(group, to_warm_pool, signals).await)
    }
}

/// Completes the terminating hooks of `group`, unless a second signal stops the daemon first, and
/// returns how the node ends.
async fn finish(group: Option<&ScalingGroup>, to_warm_pool: bool, signals: &mut Signals) -> NodeExit {
    if let Some(group) = group {
        tokio::select! {
            () = group.complete_termination() => {}
            () = signals.next_kill() => log::warn!("second signal, stopping before the lifecycle hook is completed"),
        }
    }
    if to_warm_pool && !signals.stop_requested() {
        return NodeExit::WarmPool;
    }
    log::info!("headwaterd ended");
    NodeExit::Stopped
}

/// Passes the node's readiness on. It arrives with every heartbeat; only a change is logged.
fn report_readiness(
    is_ready: bool,
    state_tx: &watch::Sender<LifecycleState>,
    host: &str,
    manager: &mut ServiceManager,
    started: Instant,
) {
    let state = if is_ready { LifecycleState::Ready } else { LifecycleState::Starting };
    let previous = state_tx.send_replace(state);
    if is_ready {
        if previous != state {
            log::info!(elapsed_ms = started.elapsed().as_millis(), peer = host; "node ready");
        }
        manager.serving(&format!("serving: registry at {host}"));
    }
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

/// Waits for the cluster's secrets; `None` if a signal comes first.
async fn wait_for_secrets_or_signal(
    cluster: &Cluster,
    config: &Config,
    signals: &mut Signals,
    manager: &ServiceManager,
    node_tx: &watch::Sender<NodeStatus>,
) -> Option<(ClusterKeys, Login)> {
    tokio::select! {
        secrets = wait_for_secrets(cluster, config, manager, node_tx) => Some(secrets),
        _ = signals.next() => {
            log::info!("headwaterd ended before it had its secrets");
            None
        }
    }
}

/// Waits until the cluster's secrets are available. The node is out of service until then.
async fn wait_for_secrets(
    cluster: &Cluster,
    config: &Config,
    manager: &ServiceManager,
    node_tx: &watch::Sender<NodeStatus>,
) -> (ClusterKeys, Login) {
    let aws = Aws::in_region(&cluster.region).await;
    let fetch = async || {
        // The configuration file takes precedence.
        let secret = match &config.relay.secret_file {
            Some(path) => Secret::new(
                std::fs::read_to_string(path).map_err(|source| SecretError::Read { path: path.clone(), source })?,
            ),
            None => aws.fetch_secret(&cluster_secrets::relay_secret_name(cluster)).await?,
        };
        let keys = ClusterKeys::derive(&secret, &cluster.name)?;
        Ok::<_, SecretError>((keys, shared_registry::fetch_login(&aws, cluster).await?))
    };
    cluster_secrets::retry_until_ok(manager, async || {
        let secrets = fetch().await;
        let status = secrets.as_ref().map(drop).map_err(|e| Chain(e).to_string());
        node_tx.send_modify(|node| node.secrets = status);
        secrets
    })
    .await
}

/// Keeps the login equal to its secret, which may change at any time. Never returns.
async fn follow_login_secret(cluster: &Cluster, login_tx: watch::Sender<Login>) {
    let aws = Aws::in_region(&cluster.region).await;
    let mut was_readable = true;
    loop {
        tokio::time::sleep(LOGIN_REFRESH_INTERVAL).await;
        let fetched = shared_registry::fetch_login(&aws, cluster).await;
        match &fetched {
            Err(e) if was_readable => log::warn!(err:% = Chain(e); "the registry's secret can no longer be read"),
            Ok(login) => {
                let changed = login_tx.send_if_modified(|current| {
                    let changed = current != login;
                    current.clone_from(login);
                    changed
                });
                if changed {
                    log::info!("the registry's secret has changed");
                }
            }
            Err(_) => {}
        }
        was_readable = fetched.is_ok();
    }
}

/// The steps before the database stops: another node becomes primary, and this node is
/// deregistered.
async fn hand_over_and_deregister(
    mongod_config: &MongodConfig,
    keys: &ClusterKeys,
    registered_rx: &watch::Receiver<Option<Registered>>,
    config: &Config,
) {
    step_down(mongod_config, keys).await;
    let registered = registered_rx.borrow().clone();
    if let Some(registered) = registered {
        registration::deregister_within(&registered, config, DEREGISTER_TIMEOUT).await;
    }
}

/// Interval between two reads of the secret.
const LOGIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// Deregistering may have to wait for the election of the next primary.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(10);
