//! Starts the engine and looks after it: one process at a time, started again when it ends by itself, ended when told.
//!
//! Decisions are in `engine/life.rs` and `backoff.rs`; here is what waits. The engine is a program like any other:
//! it gets a configuration file, says in a file where it listens, and answers health questions.

mod life;
mod probe;
mod teller;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use headwater_api::Config;
use headwater_api::endpoints::{self, Endpoints};
use headwater_api::error::{Chain, exit};
use headwater_api::standing::Standing;
use tokio::process::Command;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::child::{self, Child};
pub(crate) use life::Order;
use life::{Action, Event, Life};
use probe::Probe;
pub(crate) use probe::{dial, fetch_status};
use teller::Teller;

/// Why there is no engine any more, although nobody ended it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// Its configuration cannot be handed over.
    #[error("could not write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// There is no such program, or it may not be run.
    #[error("could not run the engine {}; --engine says where it is", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It refuses its configuration: starting it again would not help.
    #[error("the engine refuses its configuration: {0}")]
    Refused(String),
    /// It never served.
    #[error("the engine could not start: {0}")]
    NeverServed(String),
    /// It ends as often as it is started.
    #[error("the engine keeps ending: {0}")]
    KeepsEnding(String),
    /// It says itself that it has a bug, before it ever served.
    #[error("the engine failed: {0}")]
    Bug(String),
}

impl EngineError {
    /// What the daemon ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Write { .. } | Self::Program { .. } | Self::Refused(_) => exit::CONFIG,
            Self::NeverServed(_) | Self::KeepsEnding(_) => exit::UNAVAILABLE,
            Self::Bug(_) => exit::SOFTWARE,
        }
    }
}

/// What happens to the engine, for whoever announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// It serves, here.
    Serving(Endpoints),
    /// It has ended by itself, for this reason, and will be started again.
    Lost(String),
}

/// The engine of this node.
#[derive(Debug)]
pub(crate) struct Engine {
    program: PathBuf,
    data_dir: PathBuf,
    config_file: PathBuf,
    drain: Duration,
}

/// How one life ended.
struct Ending {
    code: Option<i32>,
    why: String,
    served: Option<Duration>,
}

impl Engine {
    /// Writes the engine's configuration into the data folder. Nothing runs yet.
    pub(crate) fn prepare(program: PathBuf, config: &Config) -> Result<Self, EngineError> {
        let data_dir = config.node.data_dir.clone();
        let config_file = data_dir.join(CONFIG_NAME);
        let text = toml::to_string(config).map_err(io::Error::other);
        text.and_then(|text| std::fs::write(&config_file, format!("{CONFIG_HEADER}{text}")))
            .map_err(|source| EngineError::Write { path: config_file.clone(), source })?;
        let drain = Duration::from_millis(u64::from(config.node.drain_ms.get()));
        Ok(Self { program, data_dir, config_file, drain })
    }

    /// Keeps an engine running until it is ordered to end, and tells `news` what happens.
    pub(crate) async fn run(
        &self,
        mut orders: watch::Receiver<Order>,
        standing: watch::Receiver<Standing>,
        mut news: impl FnMut(News),
    ) -> Result<(), EngineError> {
        let mut backoff = Backoff::default();
        while *orders.borrow_and_update() == Order::Serve {
            let ending = self.live(&mut orders, &standing, &mut news).await?;
            // A file that nobody listens behind would be a lie; the engine removes it only if it ends in order.
            let _ = std::fs::remove_file(self.data_dir.join(endpoints::FILE_NAME));
            if *orders.borrow() != Order::Serve {
                break;
            }
            let code = ending.code.and_then(|code| u8::try_from(code).ok());
            match (code, ending.served) {
                (Some(exit::CONFIG), _) => return Err(EngineError::Refused(ending.why)),
                (Some(exit::SOFTWARE), None) => return Err(EngineError::Bug(ending.why)),
                _ => {}
            }
            let Some(wait) = backoff.after(ending.served) else {
                return Err(match ending.served {
                    None => EngineError::NeverServed(ending.why),
                    Some(_) => EngineError::KeepsEnding(ending.why),
                });
            };
            log::warn!(err = ending.why.as_str(), wait_ms = wait.as_millis(); "engine ended by itself, starting it again");
            news(News::Lost(ending.why));
            // An order ends the wait early.
            let _ = tokio::time::timeout(wait, orders.changed()).await;
        }
        Ok(())
    }

    /// One process from start to end.
    async fn live(
        &self,
        orders: &mut watch::Receiver<Order>,
        standing: &watch::Receiver<Standing>,
        news: &mut impl FnMut(News),
    ) -> Result<Ending, EngineError> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config_file).arg("--standing").stdin(Stdio::piped());
        let mut child = match Child::start(command, |_| {}) {
            Ok(child) => child,
            Err(source) if child::is_settled(&source) => {
                return Err(EngineError::Program { path: self.program.clone(), source });
            }
            Err(e) => {
                return Ok(Ending { code: None, why: format!("could not be started: {}", Chain(&e)), served: None });
            }
        };
        let _teller = child.take_input().map(|input| Teller::start(input, standing.clone()));
        let probe = Probe::new(&self.data_dir, child.pid());
        let mut life = Life::new(Instant::now(), self.drain);
        let mut killed = None;
        let status = loop {
            let deadline = life.deadline();
            let event = tokio::select! {
                status = child.ended() => break status,
                order = next_order(orders) => Event::Ordered(order),
                event = probe.next(life.serving()), if life.watched() => event,
                () = sleep_until(deadline), if deadline.is_some() => Event::Overdue,
            };
            match life.apply(event, Instant::now()) {
                Action::Wait => {}
                Action::Announce => match probe.endpoints() {
                    Some(endpoints) => news(News::Serving(endpoints)),
                    None => log::warn!("engine serves, but does not say where"),
                },
                Action::Terminate => child.terminate(),
                Action::Kill(why) => {
                    log::warn!(err = why.as_str(); "killing the engine");
                    child.kill();
                    killed = Some(why);
                }
            }
        };
        let served = life.served(Instant::now());
        let code = status.as_ref().ok().and_then(ExitStatus::code);
        let why = match (killed, child.last_line().await) {
            (Some(why), _) => format!("it {why}"),
            (None, Some(line)) => line,
            (None, None) => status.map_or_else(|e| Chain(&e).to_string(), |status| status.to_string()),
        };
        Ok(Ending { code, why, served })
    }
}

/// The next order. Never, if nobody is left to give one.
pub(crate) async fn next_order(orders: &mut watch::Receiver<Order>) -> Order {
    if orders.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *orders.borrow_and_update()
}

/// At once without a deadline.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

/// The engine beside this program, as both are installed together; else whatever PATH has.
pub(crate) fn default_program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(PROGRAM_NAME)).filter(|path| path.is_file());
    beside.unwrap_or_else(|| Path::new(PROGRAM_NAME).to_owned())
}

const PROGRAM_NAME: &str = "headwater-engine";
/// Inside the data folder.
const CONFIG_NAME: &str = "engine.toml";
const CONFIG_HEADER: &str = "# Written by headwaterd at every start: what is changed here is lost.\n";
