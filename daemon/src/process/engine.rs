//! Supervises the engine: one process at a time, restarted when it exits unexpectedly, stopped on
//! command.
//!
//! `engine_state.rs` and `backoff.rs` decide; this file waits. The engine is an ordinary program:
//! it reads a configuration file, and reports its listeners and its health on a socket.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use headwater_api::Config;
use headwater_api::control::NodeHealth;
use headwater_api::control::{ENDPOINTS_FILE, Endpoints};
use headwater_api::error::{Chain, exit};
use tokio::process::Command;
use tokio::sync::watch;

use crate::process::backoff::Backoff;
use crate::process::child;
use crate::process::child::Child;
use crate::process::engine_config_file::{self, EngineConfigFile};
use crate::process::engine_link::UnstartedLink;
pub(crate) use crate::process::engine_state::RunCommand;
use crate::process::engine_state::{Action, EngineState, Event};
pub(crate) use crate::process::engine_status::{dial_address, fetch_status};

/// Why the engine has stopped without a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// Its configuration file could not be written.
    #[error("could not write {}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// The cause of the failure.
        source: io::Error,
    },
    /// The program does not exist or is not executable.
    #[error("could not run the engine {}; --engine sets its path", path.display())]
    Program {
        /// Its path.
        path: PathBuf,
        /// The cause of the failure.
        source: io::Error,
    },
    /// It rejects its configuration: a restart would not help.
    #[error("the engine rejects its configuration: {0}")]
    ConfigRejected(String),
    /// It never became ready.
    #[error("the engine could not start: {0}")]
    NeverServed(String),
    /// It exits after every start.
    #[error("the engine keeps exiting: {0}")]
    KeepsExiting(String),
    /// It reported an internal error before it ever served.
    #[error("the engine failed: {0}")]
    Bug(String),
}

impl EngineError {
    /// Exit code of the daemon for this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Write { .. } | Self::Program { .. } | Self::ConfigRejected(_) => exit::CONFIG,
            Self::NeverServed(_) | Self::KeepsExiting(_) => exit::UNAVAILABLE,
            Self::Bug(_) => exit::SOFTWARE,
        }
    }
}

/// A change of the engine's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineEvent {
    /// The engine serves; these are its listeners.
    Serving(Box<Endpoints>),
    /// The engine has exited unexpectedly, for this reason, and will be restarted.
    Exited(String),
}

/// The engine of this node.
#[derive(Debug)]
pub(crate) struct Engine {
    program: PathBuf,
    data_dir: PathBuf,
    config_file: EngineConfigFile,
    drain_timeout: Duration,
}

/// How a process has exited.
struct ProcessExit {
    code: Option<i32>,
    reason: String,
    served_for: Option<Duration>,
}

impl Engine {
    /// Writes the engine's configuration into the data folder. Starts nothing.
    pub(crate) fn prepare(program: PathBuf, config: &Config) -> Result<Self, EngineError> {
        let data_dir = config.node.data_dir.clone();
        let text = toml::to_string(config).map_err(io::Error::other);
        let config_file = text
            .and_then(|text| EngineConfigFile::write(&data_dir, format!("{CONFIG_HEADER}{text}").trim_end()))
            .map_err(|source| EngineError::Write { path: data_dir.join(engine_config_file::FILE_NAME), source })?;
        let drain_timeout = Duration::from_millis(u64::from(config.node.drain_ms.get()));
        Ok(Self { program, data_dir, config_file, drain_timeout })
    }

    /// Keeps the engine running until the command is no longer [`RunCommand::Serve`]. `on_event`
    /// receives each change.
    pub(crate) async fn run(
        &self,
        mut command_rx: watch::Receiver<RunCommand>,
        health_rx: watch::Receiver<NodeHealth>,
        mut on_event: impl FnMut(EngineEvent),
    ) -> Result<(), EngineError> {
        let mut backoff = Backoff::default();
        while *command_rx.borrow_and_update() == RunCommand::Serve {
            let process_exit = self.run_process(&mut command_rx, &health_rx, &mut on_event).await?;
            // Remove the stale file: the engine removes it only on an orderly exit.
            let _ = std::fs::remove_file(self.data_dir.join(ENDPOINTS_FILE));
            if *command_rx.borrow() != RunCommand::Serve {
                break;
            }
            let code = process_exit.code.and_then(|code| u8::try_from(code).ok());
            match (code, process_exit.served_for) {
                (Some(exit::CONFIG), _) => return Err(EngineError::ConfigRejected(process_exit.reason)),
                (Some(exit::SOFTWARE), None) => return Err(EngineError::Bug(process_exit.reason)),
                _ => {}
            }
            let Some(delay) = backoff.next_delay(process_exit.served_for) else {
                return Err(match process_exit.served_for {
                    None => EngineError::NeverServed(process_exit.reason),
                    Some(_) => EngineError::KeepsExiting(process_exit.reason),
                });
            };
            log::warn!(err = process_exit.reason.as_str(), wait_ms = delay.as_millis(); "engine exited unexpectedly, restarting it");
            on_event(EngineEvent::Exited(process_exit.reason));
            // A command ends the wait early.
            let _ = tokio::time::timeout(delay, command_rx.changed()).await;
        }
        Ok(())
    }

    /// Runs one process from start to exit.
    async fn run_process(
        &self,
        command_rx: &mut watch::Receiver<RunCommand>,
        health_rx: &watch::Receiver<NodeHealth>,
        on_event: &mut impl FnMut(EngineEvent),
    ) -> Result<ProcessExit, EngineError> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.config_file.path()).arg("--node-health");
        let started = UnstartedLink::new().and_then(|(link, input)| {
            command.stdin(input);
            let child = Child::start(command, |_| {})?;
            Ok((child, link.start(health_rx.clone())?))
        });
        let (mut child, mut link) = match started {
            Ok(started) => started,
            Err(source) if child::is_permanent(&source) => {
                return Err(EngineError::Program { path: self.program.clone(), source });
            }
            Err(e) => {
                return Ok(ProcessExit {
                    code: None,
                    reason: format!("could not be started: {}", Chain(&e)),
                    served_for: None,
                });
            }
        };
        let mut state = EngineState::new(Instant::now(), self.drain_timeout);
        let mut killed = None;
        let status = loop {
            let deadline = state.deadline();
            let event = tokio::select! {
                status = child.wait() => break status,
                run_command = next_command(command_rx) => Event::Command(run_command),
                event = link.next_event(), if state.is_supervised() => event,
                () = sleep_until(deadline), if deadline.is_some() => Event::DeadlinePassed,
            };
            match state.apply(event, Instant::now()) {
                Action::Wait => {}
                Action::ReportServing(failure) => {
                    if let Some(reason) = failure {
                        log::warn!(err = reason.as_str(); "engine serves, but not all of it works");
                    }
                    // There is no serving engine without a report.
                    if let Some(endpoints) = link.endpoints() {
                        on_event(EngineEvent::Serving(Box::new(endpoints)));
                    }
                }
                Action::Terminate => child.terminate(),
                Action::Kill(reason) => {
                    log::warn!(err = reason.as_str(); "killing the engine");
                    child.kill();
                    killed = Some(reason);
                }
            }
        };
        let served_for = state.served_for(Instant::now());
        let code = status.as_ref().ok().and_then(ExitStatus::code);
        let reason = match (killed, child.last_line().await) {
            (Some(reason), _) => format!("it {reason}"),
            (None, Some(line)) => line,
            (None, None) => status.map_or_else(|e| Chain(&e).to_string(), |status| status.to_string()),
        };
        Ok(ProcessExit { code, reason, served_for })
    }
}

/// Waits for the next command. Never returns if the sender is dropped.
pub(crate) async fn next_command(command_rx: &mut watch::Receiver<RunCommand>) -> RunCommand {
    if command_rx.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *command_rx.borrow_and_update()
}

/// Returns at once without a deadline.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

/// Returns the engine next to this program, where both are installed together; otherwise the one on
/// PATH.
pub(crate) fn default_program() -> PathBuf {
    let installed =
        std::env::current_exe().ok().map(|exe| exe.with_file_name(PROGRAM_NAME)).filter(|path| path.is_file());
    installed.unwrap_or_else(|| Path::new(PROGRAM_NAME).to_owned())
}

const PROGRAM_NAME: &str = "headwater-engine";
const CONFIG_HEADER: &str = "# Written by headwaterd at every start: what is changed here is lost.\n";
