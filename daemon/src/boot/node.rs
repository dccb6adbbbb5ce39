//! The boot sequence of a node, from top to bottom: facts and plan, join, register, serve, leave.
//!
//! ```text
//!   planner --facts, plan--> joining --Registered--> Engine::prepare --> supervisor --> leave
//!                               (a registry node runs registry_node::node instead)
//! ```
//!
//! Only the order is decided here; each step is a function of its own room.

use std::path::{Path, PathBuf};
use std::time::Instant;

use headwater_registry::DesiredState;
use tokio::sync::watch;

use crate::aws::imds::Imds;
use crate::aws::lifecycle_hooks::{LifecycleState, ScalingGroup};
use crate::aws::{capacity, scaling_metric, termination};
use crate::boot::error::{BootError, NodeExit};
use crate::boot::facts::Facts;
use crate::boot::joining::{self, Joined};
use crate::boot::plan::Plan;
use crate::boot::run_state::RunState;
use crate::boot::settings::Settings;
use crate::boot::supervisor::Supervisor;
use crate::boot::{data_dir, planner, registration};
use crate::cluster::heartbeat::HeartbeatChannels;
use crate::cluster::node_health::NodeHealthTracker;
use crate::cluster::{administrator, app_defaults, cluster_secrets, heartbeat};
use crate::operator_command::OperatorCommand;
use crate::process::engine::{self, Engine, RunCommand};
use crate::process::service_manager::{ServiceManager, Signals, Watchdog};
use crate::registry_node::node as registry_node;

/// Runs the node until SIGTERM or SIGINT, or until an error stops it. `command` is for hints in the
/// log.
pub(crate) async fn run(
    config: Option<PathBuf>,
    program: Option<PathBuf>,
    command: OperatorCommand,
) -> Result<(), BootError> {
    let mut signals = Signals::watch().map_err(BootError::Signals)?;
    let (mut manager, mut watchdog) = (ServiceManager::new(), Watchdog::from_environment());
    let settings = Settings::read(config.as_deref())?;
    let program = program.unwrap_or_else(engine::default_program);
    let incarnations = async {
        loop {
            let incarnation = run_incarnation(&settings, &program, &command, &mut signals, &mut manager);
            if Box::pin(incarnation).await? != NodeExit::WarmPool {
                return Ok(());
            }
            log::info!("back in the warm pool");
        }
    };
    tokio::select! {
        result = incarnations => result,
        never = watchdog.keep_alive() => match never {},
    }
}

/// Runs one incarnation of the node, from its facts to its deregistration.
async fn run_incarnation(
    settings: &Settings,
    program: &Path,
    command: &OperatorCommand,
    signals: &mut Signals,
    manager: &mut ServiceManager,
) -> Result<NodeExit, BootError> {
    let started = Instant::now();
    let (facts, plan, mut imds) = tokio::select! {
        planned = planner::wait_for_work(settings, manager) => planned?,
        _ = signals.next() => {
            log::info!("headwaterd ended before it had a plan");
            return Ok(NodeExit::Stopped);
        }
    };
    let node = &plan.engine.node;
    log::info!(
        version = env!("CARGO_PKG_VERSION"), commit = env!("HEADWATER_COMMIT"), role = node.role.as_str(),
        node = node.id.as_str();
        "headwaterd starting"
    );
    let _data_dir_lock = data_dir::prepare(&node.data_dir).await?;
    if plan.mongod.is_some() {
        let registry_node = registry_node::run(&plan, &facts, imds.as_mut(), signals, manager, started);
        return Box::pin(registry_node).await;
    }
    let Some(mut joined) = joining::join(&plan, &facts, signals, manager).await? else {
        log::info!("headwaterd ended before it was registered");
        return Ok(NodeExit::Stopped);
    };
    administrator::create_at_first_boot(&joined.config, command).await?;
    app_defaults::choose(&plan, &joined, facts.instance.is_some(), command).await?;
    joined.config.node.boot_epoch = Some(joined.registered.incarnation.epoch.0);
    let engine = Engine::prepare(program.to_owned(), &joined.config)?;
    let node = RunningNode { plan: &plan, facts: &facts, joined: &joined, engine: &engine };
    Box::pin(node.serve(imds.as_mut(), signals, manager, started)).await
}

/// What a registered node consists of.
struct RunningNode<'a> {
    plan: &'a Plan,
    facts: &'a Facts,
    joined: &'a Joined,
    engine: &'a Engine,
}

impl RunningNode<'_> {
    /// Serves until the engine has stopped, then deregisters the node.
    async fn serve(
        &self,
        imds: Option<&mut Imds>,
        signals: &mut Signals,
        manager: &mut ServiceManager,
        started: Instant,
    ) -> Result<NodeExit, BootError> {
        let Self { plan, facts, joined: Joined { config, registered }, engine } = self;
        let group = ScalingGroup::from_plan(plan).await;
        let (command_tx, command_rx) = watch::channel(RunCommand::Serve);
        let (event_tx, event_rx) = watch::channel(None);
        let (health_tx, health_rx) = watch::channel(NodeHealthTracker::new(registered.shared_store.is_some()).report());
        let (lifecycle_tx, lifecycle_rx) = watch::channel(LifecycleState::Starting);
        let (endpoints_tx, endpoints_rx) = watch::channel(None);
        let (capacity_tx, capacity_rx) = watch::channel(0);
        let (write_pending_tx, write_pending_rx) = watch::channel(false);
        let (desired_state_tx, desired_state_rx) = watch::channel(DesiredState::Serve);
        let registry_uri = cluster_secrets::follow_registry_uri(plan, config, health_tx.subscribe());
        let channels = HeartbeatChannels {
            endpoints_rx,
            command_rx: command_tx.subscribe(),
            health_tx,
            capacity_rx,
            write_pending_tx,
            desired_state_tx,
        };
        let followers = async {
            tokio::join!(
                group.run(lifecycle_rx.clone()),
                scaling_metric::publish_headroom(plan, lifecycle_rx.clone()),
                administrator::follow_secret(plan.cluster.as_ref(), registered.shared_store.as_ref()),
                capacity::publish_capacity(plan, facts.instance.as_ref(), capacity_tx),
                registry_uri,
            );
        };
        let mut supervisor = Supervisor {
            engine_run: Box::pin(engine.run(command_rx, health_rx, |event| drop(event_tx.send_replace(Some(event))))),
            superseded: Some(Box::pin(heartbeat::run_until_superseded(registered, channels))),
            termination: Box::pin(termination::wait_for_termination(imds)),
            followers: Some(Box::pin(followers)),
            event_rx,
            desired_state_rx,
            write_pending_rx,
        };
        let mut state = RunState { command_tx, endpoints_tx, lifecycle_tx, manager, started, to_warm_pool: false };
        let result = loop {
            let action = supervisor.next(signals, state.command()).await;
            if let Some(result) = state.apply(action) {
                break result;
            }
        };
        state.report_leaving();
        let deregistration = async {
            supervisor.finish_heartbeat().await;
            registration::deregister_within(registered, config, registration::DEREGISTER_TIMEOUT).await;
            if state.is_draining_for_group() {
                group.complete_termination().await;
            }
        };
        tokio::select! {
            () = deregistration => {}
            () = signals.next_kill() => log::warn!("second signal, stopping before the node is deregistered"),
        }
        result?;
        if state.to_warm_pool && !signals.stop_requested() {
            return Ok(NodeExit::WarmPool);
        }
        log::info!("headwaterd ended");
        Ok(NodeExit::Stopped)
    }
}
