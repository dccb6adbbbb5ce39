//! The whole boot of a node, on one screen: facts, plan, registry, engine, serve, drain.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headwater_api::error::exit;
use headwater_registry::{RegistryError, Wish};
use tokio::sync::watch;

use crate::administrator::AdministratorError;
use crate::asg::{Group, State};
use crate::engine::{self, Engine, EngineError, News, Order};
use crate::heartbeat::Ears;
use crate::imds::ImdsError;
use crate::lifecycle::{ServiceManager, Signals, Watchdog};
use crate::mongod::PrepareError;
use crate::plan::PlanError;
use crate::settings::{Settings, SettingsError};
use crate::standing::Outlook;
use crate::{administrator, capacity, data_dir, decide, heartbeat, join, notice, register, registry_node, scaling};

/// Why the node is not up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// Signals cannot be watched.
    #[error("could not watch signals")]
    Signals(#[source] std::io::Error),
    /// The configuration file cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Instance metadata must be there and is not.
    #[error(transparent)]
    Metadata(#[from] ImdsError),
    /// Facts and settings make no node.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::DataDirError),
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The administrator cannot be made.
    #[error(transparent)]
    Administrator(#[from] AdministratorError),
    /// The database of a registry node cannot be set up.
    #[error(transparent)]
    Mongod(#[from] PrepareError),
    /// The engine cannot be had.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl BootError {
    /// What the daemon ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Signals(_) | Self::Metadata(_) | Self::Registry(RegistryError::Locked { .. }) => exit::UNAVAILABLE,
            Self::Administrator(_) => exit::UNAVAILABLE,
            Self::Settings(_) | Self::Plan(_) | Self::DataDir(_) | Self::Mongod(_) | Self::Registry(_) => exit::CONFIG,
            Self::Engine(e) => e.exit_code(),
        }
    }
}

/// How the life of a node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// For good: the daemon ends too.
    Over,
    /// Its instance is back in the warm pool, and may be wanted again.
    Warm,
}

/// Runs the node until it is told to end.
pub(crate) async fn run(config: Option<PathBuf>, program: Option<PathBuf>) -> Result<(), BootError> {
    let mut signals = Signals::watch().map_err(BootError::Signals)?;
    let (mut manager, mut watchdog) = (ServiceManager::find(), Watchdog::find());
    let settings = Settings::read(config.as_deref())?;
    let program = program.unwrap_or_else(engine::default_program);
    let lives = async {
        while Box::pin(live(&settings, &program, &mut signals, &mut manager)).await? == Ending::Warm {
            log::info!("back in the warm pool");
        }
        Ok(())
    };
    tokio::select! {
        ended = lives => ended,
        never = watchdog.keep_alive() => match never {},
    }
}

/// One life of the node, from its facts to its end.
async fn live(
    settings: &Settings,
    program: &Path,
    signals: &mut Signals,
    manager: &mut ServiceManager,
) -> Result<Ending, BootError> {
    let started = Instant::now();
    let (facts, plan, mut imds) = tokio::select! {
        decided = decide::until_wanted(settings, manager) => decided?,
        _ = signals.next() => {
            log::info!("headwaterd ended before it had a plan");
            return Ok(Ending::Over);
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
        let life = registry_node::run(&plan, &facts, imds.as_mut(), signals, manager, started);
        return Box::pin(life).await;
    }
    let mut config = plan.engine.clone();
    let (writing, writes) = watch::channel(false);
    let entering = async {
        let mut said = String::new();
        loop {
            if let Some(cluster) = &plan.cluster {
                join::until_joined(cluster, &mut config, manager).await;
            }
            let node = register::document(&plan, &config, facts.instance.as_ref());
            let patience = plan.cluster.as_ref().map_or(Duration::MAX, |_| join::patience_at_one_place());
            match register::enter(node, &config, manager, &writing, &mut said, patience).await {
                // A place, a password or a certificate that came from AWS can be put right there: ask for it anew.
                Err(e @ (RegistryError::Refused { .. } | RegistryError::Unreachable { .. }))
                    if plan.cluster.is_some() =>
                {
                    join::wait_refused(&e, manager, &mut said).await;
                    config = plan.engine.clone();
                }
                entered => break entered,
            }
        }
    };
    // Boxed, for one of the two branches takes it.
    let mut entering = Box::pin(entering);
    let registered = tokio::select! {
        registered = &mut entering => registered?,
        _ = signals.next() => {
            tokio::select! {
                () = register::give_up(entering, writes, &plan.engine) => {}
                () = signals.next_kill() => {}
            }
            log::info!("headwaterd ended before it was registered");
            return Ok(Ending::Over);
        }
    };
    drop(entering);
    administrator::at_first_boot(&config).await?;
    config.node.boot_epoch = Some(registered.life.epoch.0);
    let engine = Engine::prepare(program.to_owned(), &config)?;

    let (orders, told) = watch::channel(Order::Serve);
    let (news, mut latest) = watch::channel(None);
    let (standing, stands) = watch::channel(Outlook::new(registered.shared.is_some()).standing());
    let registry = join::follow_registry(&plan, &config, standing.subscribe());
    let service = engine.run(told, stands, |happened| drop(news.send_replace(Some(happened))));
    let group = Group::of(&plan).await;
    let (phase, phases) = watch::channel(State::Starting);
    let (engine_at, engines) = watch::channel(None);
    let (capacity, capacity_bps) = watch::channel(0);
    let (writing, mut writes) = watch::channel(false);
    let (wish, mut wishes) = watch::channel(Wish::Serve);
    let ears = Ears { engines, orders: orders.subscribe(), standing, capacity_bps, writing, wish };
    let superseded = heartbeat::until_superseded(&registered, ears);
    let scaling = scaling::publish(&plan, phases.clone());
    let accompany = group.accompany(phases);
    let unwanted = notice::until_unwanted(imds.as_mut());
    let administrator = administrator::follow_secret(plan.cluster.as_ref(), registered.shared.as_ref());
    let measured = capacity::until_known(&plan, facts.instance.as_ref(), capacity);
    tokio::pin!(service, unwanted, accompany, superseded, administrator, measured, scaling, registry);
    let (mut replaced, mut warm) = (false, false);
    let ended = loop {
        tokio::select! {
            ended = &mut service => break ended,
            signal = signals.next() => {
                let order = *orders.borrow();
                orders.send_replace(obey(signal, order, manager));
            }
            // Also while it drains: others must hear that it does.
            why = &mut superseded, if !replaced => {
                replaced = true;
                if *orders.borrow() == Order::Serve {
                    log::error!(err = why.as_str(); "another life of this node has taken over, draining");
                    orders.send_replace(Order::Drain);
                }
            }
            farewell = &mut unwanted, if *orders.borrow() == Order::Serve => {
                log::info!(err = farewell.why.as_str(); "draining");
                warm = farewell.warm;
                manager.draining(warm);
                phase.send_replace(State::Draining);
                orders.send_replace(Order::Drain);
            }
            Ok(()) = wishes.changed(), if *orders.borrow() == Order::Serve => {
                if *wishes.borrow_and_update() == Wish::Drain {
                    log::info!("draining: the administrator has asked for it");
                    manager.stopping("draining");
                    orders.send_replace(Order::Drain);
                }
            }
            Ok(()) = latest.changed() => {
                let news = latest.borrow_and_update();
                engine_at.send_replace(match news.as_ref() {
                    Some(News::Serving(at)) => Some(at.clone()),
                    _ => None,
                });
                if let (Some(News::Serving(at)), Order::Serve) = (news.as_ref(), *orders.borrow()) {
                    phase.send_replace(State::Serving(at.health));
                }
                announce(news.as_ref(), manager, started);
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
        // What is on its way to the registry must arrive first, or it would enter the node again.
        tokio::select! {
            _ = &mut superseded, if !replaced => {}
            _ = writes.wait_for(|writing| !writing) => {}
            () = tokio::time::sleep(register::FAREWELL) => {}
        }
        register::take_leave(&registered, &config, register::FAREWELL).await;
        if *phase.borrow() == State::Draining {
            group.leave().await;
        }
    };
    tokio::select! {
        () = leaving => {}
        () = signals.next_kill() => log::warn!("told again to end at once, while taking leave"),
    }
    ended?;
    if warm && !signals.told() {
        return Ok(Ending::Warm);
    }
    log::info!("headwaterd ended");
    Ok(Ending::Over)
}

/// What is to be done after a signal, if `before` was until now.
pub(crate) fn obey(signal: Order, before: Order, manager: &ServiceManager) -> Order {
    match (signal, before) {
        (Order::Kill, _) => log::warn!("second signal, ending at once"),
        (_, Order::Serve) => {
            log::info!("draining; a second signal ends at once");
            manager.stopping("draining");
        }
        _ => log::info!("told to end, and draining already; a second signal ends at once"),
    }
    before.max(signal)
}

fn announce(news: Option<&News>, manager: &mut ServiceManager, started: Instant) {
    match news {
        Some(News::Serving(at)) => {
            log::info!(elapsed_ms = started.elapsed().as_millis(), http:% = at.http, rtmp:% = at.rtmp; "node ready");
            manager.serving(&format!("serving: http {}, rtmp {}", at.http, at.rtmp));
        }
        Some(News::Lost(why)) => manager.status(&format!("restarting the engine: {why}")),
        None => {}
    }
}
