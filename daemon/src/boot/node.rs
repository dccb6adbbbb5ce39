//! The boot sequence of a node: facts, plan, registration, engine, supervision, drain,
//! deregistration.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headwater_api::error::exit;
use headwater_registry::{RegistryError, DesiredState};
use tokio::sync::watch;

use crate::aws::imds::ImdsError;
use crate::aws::lifecycle_hooks::{ScalingGroup, LifecycleState};
use crate::aws::{capacity, scaling_metric, termination};
use crate::boot::plan::PlanError;
use crate::boot::settings::{Settings, SettingsError};
use crate::boot::{data_dir, planner, registration};
use crate::cluster::administrator::AdministratorError;
use crate::cluster::heartbeat::HeartbeatChannels;
use crate::cluster::node_health::NodeHealthTracker;
use crate::cluster::{administrator, cluster_secrets, heartbeat};
use crate::process::engine;
use crate::process::engine::{Engine, EngineError, EngineEvent, RunCommand};
use crate::process::service_manager::{ServiceManager, Signals, Watchdog};
use crate::registry_node::mongod::PrepareError;
use crate::registry_node::node;

/// Why the node could not start or keep running.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// Signal handlers could not be installed.
    #[error("could not watch signals")]
    Signals(#[source] std::io::Error),
    /// The configuration file is unusable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Instance metadata is required but unavailable.
    #[error(transparent)]
    Metadata(#[from] ImdsError),
    /// Facts and settings do not make a valid plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The data folder is not writable.
    #[error(transparent)]
    DataDir(#[from] data_dir::DataDirError),
    /// The registry is unusable.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The administrator account could not be created.
    #[error(transparent)]
    Administrator(#[from] AdministratorError),
    /// The files of a registry node's database could not be written.
    #[error(transparent)]
    Mongod(#[from] PrepareError),
    /// The engine could not be started, or keeps exiting.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl BootError {
    /// Exit code of the daemon for this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Signals(_) | Self::Metadata(_) | Self::Registry(RegistryError::Locked { .. }) => exit::UNAVAILABLE,
            Self::Administrator(_) => exit::UNAVAILABLE,
            Self::Settings(_) | Self::Plan(_) | Self::DataDir(_) | Self::Mongod(_) | Self::Registry(_) => exit::CONFIG,
            Self::Engine(e) => e.exit_code(),
        }
    }
}

/// Why an incarnation of the node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeExit {
    /// The node was stopped: the daemon exits too.
    Stopped,
    /// The instance is back in the warm pool and may be started again.
    WarmPool,
}

/// Runs the node until SIGTERM or SIGINT, or until an error stops it.
pub(crate) async fn run(config: Option<PathBuf>, program: Option<PathBuf>) -> Result<(), BootError> {
    let mut signals = Signals::watch().map_err(BootError::Signals)?;
    let (mut manager, mut watchdog) = (ServiceManager::new(), Watchdog::from_environment());
    let settings = Settings::read(config.as_deref())?;
    let program = program.unwrap_or_else(engine::default_program);
    let incarnations = async {
        while Box::pin(run_incarnation(&settings, &program, &mut signals, &mut manager)).await? == NodeExit::WarmPool {
            log::info!("back in the warm pool");
        }
        Ok(())
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
    data_dir::prepare(&node.data_dir)?;
    if plan.mongod.is_some() {
        let registry_node = node::run(&plan, &facts, imds.as_mut(), signals, manager, started);
        return Box::pin(registry_node).await;
    }
    let mut config = plan.engine.clone();
    let (write_pending_tx, write_pending_rx) = watch::channel(false);
    let registration = async {
        let mut last_reason = String::new();
        loop {
            if let Some(cluster) = &plan.cluster {
                cluster_secrets::wait_for_cluster_secrets(cluster, &mut config, manager).await;
            }
            let node = registration::node_document(&plan, &config, facts.instance.as_ref());
            let timeout = plan.cluster.as_ref().map_or(Duration::MAX, |_| cluster_secrets::random_address_timeout());
            match registration::register(node, &config, manager, &write_pending_tx, &mut last_reason, timeout).await {
                // An address, a password or a certificate that came from AWS can be corrected
                // there: fetch it again.
                Err(e @ (RegistryError::Refused { .. } | RegistryError::Unreachable { .. }))
                    if plan.cluster.is_some() =>
                {
                    cluster_secrets::wait_after_rejection(&e, manager, &mut last_reason).await;
                    config = plan.engine.clone();
                }
                result => break result,
            }
        }
    };
    // Boxed, because one of the two branches takes ownership.
    let mut registration = Box::pin(registration);
    let registered = tokio::select! {
        registered = &mut registration => registered?,
        _ = signals.next() => {
            tokio::select! {
                () = registration::cancel_registration(registration, write_pending_rx, &plan.engine) => {}
                () = signals.next_kill() => {}
            }
            log::info!("headwaterd ended before it was registered");
            return Ok(NodeExit::Stopped);
        }
    };
    drop(registration);
    administrator::create_at_first_boot(&config).await?;
    config.node.boot_epoch = Some(registered.incarnation.epoch.0);
    let engine = Engine::prepare(program.to_owned(), &config)?;

    let (command_tx, command_rx) = watch::channel(RunCommand::Serve);
    let (event_tx, mut event_rx) = watch::channel(None);
    let (health_tx, health_rx) = watch::channel(NodeHealthTracker::new(registered.shared_store.is_some()).report());
    let registry_uri = cluster_secrets::follow_registry_uri(&plan, &config, health_tx.subscribe());
    let engine_run = engine.run(command_rx, health_rx, |event| drop(event_tx.send_replace(Some(event))));
    let group = ScalingGroup::from_plan(&plan).await;
    let (state_tx, state_rx) = watch::channel(LifecycleState::Starting);
    let (endpoints_tx, endpoints_rx) = watch::channel(None);
    let (capacity_tx, capacity_rx) = watch::channel(0);
    let (write_pending_tx, mut write_pending_rx) = watch::channel(false);
    let (desired_state_tx, mut desired_state_rx) = watch::channel(DesiredState::Serve);
    let channels = HeartbeatChannels { endpoints_rx, command_rx: command_tx.subscribe(), health_tx, capacity_rx, write_pending_tx, desired_state_tx };
    let superseded = heartbeat::run_until_superseded(&registered, channels);
    let headroom = scaling_metric::publish_headroom(&plan, state_rx.clone());
    let hooks = group.run(state_rx);
    let termination_notice = termination::wait_for_termination(imds.as_mut());
    let administrator_secret = administrator::follow_secret(plan.cluster.as_ref(), registered.shared_store.as_ref());
    let capacity_query = capacity::publish_capacity(&plan, facts.instance.as_ref(), capacity_tx);
    tokio::pin!(engine_run, termination_notice, hooks, superseded, administrator_secret, capacity_query, headroom, registry_uri);
    let (mut is_superseded, mut to_warm_pool) = (false, false);
    let result = loop {
        tokio::select! {
            result = &mut engine_run => break result,
            signal = signals.next() => {
                let command = *command_tx.borrow();
                command_tx.send_replace(on_signal(signal, command, manager));
            }
            // Also while the node drains: the heartbeat must report that it does.
            reason = &mut superseded, if !is_superseded => {
                is_superseded = true;
                if *command_tx.borrow() == RunCommand::Serve {
                    log::error!(err = reason.as_str(); "another incarnation of this node has taken over, draining");
                    command_tx.send_replace(RunCommand::Drain);
                }
            }
            notice = &mut termination_notice, if *command_tx.borrow() == RunCommand::Serve => {
                log::info!(err = notice.reason.as_str(); "draining");
                to_warm_pool = notice.to_warm_pool;
                manager.draining(to_warm_pool);
                state_tx.send_replace(LifecycleState::Draining);
                command_tx.send_replace(RunCommand::Drain);
            }
            Ok(()) = desired_state_rx.changed(), if *command_tx.borrow() == RunCommand::Serve => {
                if *desired_state_rx.borrow_and_update() == DesiredState::Drain {
                    log::info!("draining: requested by an administrator");
                    manager.stopping("draining");
                    command_tx.send_replace(RunCommand::Drain);
                }
            }
            Ok(()) = event_rx.changed() => {
                let event = event_rx.borrow_and_update();
                endpoints_tx.send_replace(match event.as_ref() {
                    Some(EngineEvent::Serving(at)) => Some(at.clone()),
                    _ => None,
                });
                if let (Some(EngineEvent::Serving(at)), RunCommand::Serve) = (event.as_ref(), *command_tx.borrow()) {
                    state_tx.send_replace(LifecycleState::Serving(at.health));
                }
                report_engine_event(event.as_ref(), manager, started);
            }
            () = &mut hooks => {}
            () = &mut administrator_secret => {}
            () = &mut registry_uri => {}
            () = &mut capacity_query => {}
            () = &mut headroom => {}
        }
    };
    match to_warm_pool {
        true => manager.status("leaving the registry"),
        false => manager.stopping("leaving the registry"),
    }
    let deregistration = async {
        // A registration in flight must finish first, or it would register the node again.
        tokio::select! {
            _ = &mut superseded, if !is_superseded => {}
            _ = write_pending_rx.wait_for(|pending| !pending) => {}
            () = tokio::time::sleep(registration::DEREGISTER_TIMEOUT) => {}
        }
        registration::deregister_within(&registered, &config, registration::DEREGISTER_TIMEOUT).await;
        if *state_tx.borrow() == LifecycleState::Draining {
            group.complete_termination().await;
        }
    };
    tokio::select! {
        () = deregistration => {}
        () = signals.next_kill() => log::warn!("second signal, stopping before the node is deregistered"),
    }
    result?;
    if to_warm_pool && !signals.stop_requested() {
        return Ok(NodeExit::WarmPool);
    }
    log::info!("headwaterd ended");
    Ok(NodeExit::Stopped)
}

/// Returns the run command after `signal`, given the `previous` one.
pub(crate) fn on_signal(signal: RunCommand, previous: RunCommand, manager: &ServiceManager) -> RunCommand {
    match (signal, previous) {
        (RunCommand::Kill, _) => log::warn!("second signal, stopping at once"),
        (_, RunCommand::Serve) => {
            log::info!("draining; a second signal stops at once");
            manager.stopping("draining");
        }
        _ => log::info!("already draining; a second signal stops at once"),
    }
    previous.max(signal)
}

fn report_engine_event(event: Option<&EngineEvent>, manager: &mut ServiceManager, started: Instant) {
    match event {
        Some(EngineEvent::Serving(at)) => {
            log::info!(elapsed_ms = started.elapsed().as_millis(), http:% = at.http, rtmp:% = at.rtmp; "node ready");
            manager.serving(&format!("serving: http {}, rtmp {}", at.http, at.rtmp));
        }
        Some(EngineEvent::Exited(reason)) => manager.status(&format!("restarting the engine: {reason}")),
        None => {}
    }
}
