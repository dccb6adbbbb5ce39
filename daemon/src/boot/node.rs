//! The boot sequence of a node: facts, plan, registration, engine, supervision, drain,
//! deregistration.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headwater_api::error::exit;
use headwater_registry::{RegistryError, Wish};
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
    let lives = async {
        while Box::pin(run_incarnation(&settings, &program, &mut signals, &mut manager)).await? == NodeExit::WarmPool {
            log::info!("back in the warm pool");
        }
        Ok(())
    };
    tokio::select! {
        ended = lives => ended,
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
        decided = planner::wait_for_work(settings, manager) => decided?,
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
        let life = node::run(&plan, &facts, imds.as_mut(), signals, manager, started);
        return Box::pin(life).await;
    }
    let mut config = plan.engine.clone();
    let (writing, writes) = watch::channel(false);
    let entering = async {
        let mut said = String::new();
        loop {
            if let Some(cluster) = &plan.cluster {
                cluster_secrets::wait_for_cluster_secrets(cluster, &mut config, manager).await;
            }
            let node = registration::node_document(&plan, &config, facts.instance.as_ref());
            let patience = plan.cluster.as_ref().map_or(Duration::MAX, |_| cluster_secrets::random_address_timeout());
            match registration::register(node, &config, manager, &writing, &mut said, patience).await {
                // An address, a password or a certificate that came from AWS can be corrected
                // there: fetch it again.
                Err(e @ (RegistryError::Refused { .. } | RegistryError::Unreachable { .. }))
                    if plan.cluster.is_some() =>
                {
                    cluster_secrets::wait_after_rejection(&e, manager, &mut said).await;
                    config = plan.engine.clone();
                }
                entered => break entered,
            }
        }
    };
    // Boxed, because one of the two branches takes ownership.
    let mut entering = Box::pin(entering);
    let registered = tokio::select! {
        registered = &mut entering => registered?,
        _ = signals.next() => {
            tokio::select! {
                () = registration::cancel_registration(entering, writes, &plan.engine) => {}
                () = signals.next_kill() => {}
            }
            log::info!("headwaterd ended before it was registered");
            return Ok(NodeExit::Stopped);
        }
    };
    drop(entering);
    administrator::create_at_first_boot(&config).await?;
    config.node.boot_epoch = Some(registered.incarnation.epoch.0);
    let engine = Engine::prepare(program.to_owned(), &config)?;

    let (orders, told) = watch::channel(RunCommand::Serve);
    let (news, mut latest) = watch::channel(None);
    let (standing, stands) = watch::channel(NodeHealthTracker::new(registered.shared_store.is_some()).report());
    let registry = cluster_secrets::follow_registry_uri(&plan, &config, standing.subscribe());
    let service = engine.run(told, stands, |happened| drop(news.send_replace(Some(happened))));
    let group = ScalingGroup::from_plan(&plan).await;
    let (phase, phases) = watch::channel(LifecycleState::Starting);
    let (engine_at, engines) = watch::channel(None);
    let (capacity, capacity_bps) = watch::channel(0);
    let (writing, mut writes) = watch::channel(false);
    let (wish, mut wishes) = watch::channel(Wish::Serve);
    let ears = HeartbeatChannels { endpoints_rx: engines, command_rx: orders.subscribe(), health_tx: standing, capacity_rx: capacity_bps, write_pending_tx: writing, desired_state_tx: wish };
    let superseded = heartbeat::run_until_superseded(&registered, ears);
    let scaling = scaling_metric::publish_headroom(&plan, phases.clone());
    let accompany = group.run(phases);
    let unwanted = termination::wait_for_termination(imds.as_mut());
    let administrator = administrator::follow_secret(plan.cluster.as_ref(), registered.shared_store.as_ref());
    let measured = capacity::publish_capacity(&plan, facts.instance.as_ref(), capacity);
    tokio::pin!(service, unwanted, accompany, superseded, administrator, measured, scaling, registry);
    let (mut replaced, mut warm) = (false, false);
    let ended = loop {
        tokio::select! {
            ended = &mut service => break ended,
            signal = signals.next() => {
                let order = *orders.borrow();
                orders.send_replace(on_signal(signal, order, manager));
            }
            // Also while the node drains: the heartbeat must report that it does.
            why = &mut superseded, if !replaced => {
                replaced = true;
                if *orders.borrow() == RunCommand::Serve {
                    log::error!(err = why.as_str(); "another life of this node has taken over, draining");
                    orders.send_replace(RunCommand::Drain);
                }
            }
            farewell = &mut unwanted, if *orders.borrow() == RunCommand::Serve => {
                log::info!(err = farewell.reason.as_str(); "draining");
                warm = farewell.to_warm_pool;
                manager.draining(warm);
                phase.send_replace(LifecycleState::Draining);
                orders.send_replace(RunCommand::Drain);
            }
            Ok(()) = wishes.changed(), if *orders.borrow() == RunCommand::Serve => {
                if *wishes.borrow_and_update() == Wish::Drain {
                    log::info!("draining: the administrator has asked for it");
                    manager.stopping("draining");
                    orders.send_replace(RunCommand::Drain);
                }
            }
            Ok(()) = latest.changed() => {
                let news = latest.borrow_and_update();
                engine_at.send_replace(match news.as_ref() {
                    Some(EngineEvent::Serving(at)) => Some(at.clone()),
                    _ => None,
                });
                if let (Some(EngineEvent::Serving(at)), RunCommand::Serve) = (news.as_ref(), *orders.borrow()) {
                    phase.send_replace(LifecycleState::Serving(at.health));
                }
                report_engine_event(news.as_ref(), manager, started);
            }
            () = &mut accompany => {}
            () = &mut administrator => {}
            () = &mut registry => {}
            () = &mut measured => {}
            () = &mut scaling => {}
        }
    };
    match warm {
        true => manager.status("leaving the registry"),
        false => manager.stopping("leaving the registry"),
    }
    let leaving = async {
        // A registration in flight must finish first, or it would register the node again.
        tokio::select! {
            _ = &mut superseded, if !replaced => {}
            _ = writes.wait_for(|writing| !writing) => {}
            () = tokio::time::sleep(registration::DEREGISTER_TIMEOUT) => {}
        }
        registration::deregister_within(&registered, &config, registration::DEREGISTER_TIMEOUT).await;
        if *phase.borrow() == LifecycleState::Draining {
            group.complete_termination().await;
        }
    };
    tokio::select! {
        () = leaving => {}
        () = signals.next_kill() => log::warn!("told again to end at once, while taking leave"),
    }
    ended?;
    if warm && !signals.stop_requested() {
        return Ok(NodeExit::WarmPool);
    }
    log::info!("headwaterd ended");
    Ok(NodeExit::Stopped)
}

/// Returns the run command after `signal`, given the one `before` it.
pub(crate) fn on_signal(signal: RunCommand, before: RunCommand, manager: &ServiceManager) -> RunCommand {
    match (signal, before) {
        (RunCommand::Kill, _) => log::warn!("second signal, ending at once"),
        (_, RunCommand::Serve) => {
            log::info!("draining; a second signal ends at once");
            manager.stopping("draining");
        }
        _ => log::info!("told to end, and draining already; a second signal ends at once"),
    }
    before.max(signal)
}

fn report_engine_event(news: Option<&EngineEvent>, manager: &mut ServiceManager, started: Instant) {
    match news {
        Some(EngineEvent::Serving(at)) => {
            log::info!(elapsed_ms = started.elapsed().as_millis(), http:% = at.http, rtmp:% = at.rtmp; "node ready");
            manager.serving(&format!("serving: http {}, rtmp {}", at.http, at.rtmp));
        }
        Some(EngineEvent::Exited(why)) => manager.status(&format!("restarting the engine: {why}")),
        None => {}
    }
}
