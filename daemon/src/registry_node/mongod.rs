//! Supervises the database of a registry node: one process at a time, restarted when it exits
//! unexpectedly, stopped in order on command.
//!
//! Like the engine's supervisor, with two differences. It never gives up: an operator who repairs a
//! database should find it running afterwards. And it does not kill a silent database: recovery
//! after a crash takes minutes. `reconciler.rs` manages the replica set, `membership.rs` decides
//! about its members.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use headwater_api::error::Chain;
use headwater_program::private_file::write_private;
use tokio::process::Command;
use tokio::sync::watch;

use crate::process::backoff::{Backoff, MAX_DELAY};
use crate::process::child::Child;
use crate::process::engine::{RunCommand, next_command, sleep_until};
use crate::registry_node::config;
use crate::registry_node::config::MongodConfig;
use crate::registry_node::keyfile::ClusterKeys;
use crate::registry_node::log_output::LogForwarder;

/// A file or folder of the database could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write {}", path.display())]
pub(crate) struct PrepareError {
    path: PathBuf,
    source: io::Error,
}

/// The mongod of this node.
#[derive(Debug)]
pub(crate) struct MongodProcess {
    program: PathBuf,
    config_file: PathBuf,
}

impl MongodProcess {
    /// Writes its configuration and key file. Starts nothing.
    pub(crate) fn prepare(program: &Path, config: &MongodConfig, keys: &ClusterKeys) -> Result<Self, PrepareError> {
        let (database_dir, conf) = (config.database_dir(), config.config_file());
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&database_dir);
        made.map_err(|source| PrepareError { path: database_dir, source })?;
        for (name, text) in
            [(config::KEY_NAME, keys.key_file.reveal()), (config::CONFIG_NAME, config.to_yaml().trim_end())]
        {
            write_private(config.data_dir(), name, text)
                .map_err(|source| PrepareError { path: config.data_dir().join(name), source })?;
        }
        Ok(Self { program: program.to_owned(), config_file: conf })
    }

    /// Keeps mongod running until the command is no longer [`RunCommand::Serve`]. `on_change`
    /// receives `Ok` each time a process was started, and the reason each time it stops running.
    pub(crate) async fn run(
        &self,
        mut command_rx: watch::Receiver<RunCommand>,
        mut on_change: impl FnMut(Result<(), String>),
    ) {
        let mut backoff = Backoff::default();
        let mut last_reason = String::new();
        while *command_rx.borrow_and_update() == RunCommand::Serve {
            let started = Instant::now();
            let process_exit = self.run_process(&mut command_rx, &mut on_change).await;
            if *command_rx.borrow() != RunCommand::Serve {
                break;
            }
            let delay = backoff.next_delay(Some(started.elapsed())).unwrap_or(MAX_DELAY);
            match process_exit {
                // A repeated failure is logged once.
                ProcessExit::SpawnFailed(reason) if reason == last_reason => {}
                ProcessExit::SpawnFailed(reason) => {
                    log::warn!(err = reason.as_str(); "out of service");
                    on_change(Err(reason.clone()));
                    last_reason = reason;
                }
                ProcessExit::Exited(reason) => {
                    log::warn!(err = reason.as_str(), wait_ms = delay.as_millis(); "mongod exited unexpectedly, restarting it");
                    on_change(Err(format!("mongod exited: {reason}")));
                    last_reason.clear();
                }
            }
            // A command ends the wait early.
            let _ = tokio::time::timeout(delay, command_rx.changed()).await;
        }
    }

    /// Runs one process from start to exit.
    async fn run_process(
        &self,
        command_rx: &mut watch::Receiver<RunCommand>,
        on_change: &mut impl FnMut(Result<(), String>),
    ) -> ProcessExit {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config_file).stdin(Stdio::null());
        let mut forwarder = LogForwarder::default();
        let last_error = forwarder.last_error();
        let mut child = match Child::start(command, move |bytes| forwarder.push(bytes)) {
            Ok(child) => child,
            Err(e) => {
                let program = self.program.display();
                return ProcessExit::SpawnFailed(format!(
                    "could not run {program}, which a registry node needs; program under [mongod] sets its path: {}",
                    Chain(&e)
                ));
            }
        };
        log::info!(pid = child.pid(); "mongod started");
        on_change(Ok(()));
        let mut kill_deadline = None;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                run_command = next_command(command_rx) => match run_command {
                    RunCommand::Serve => {}
                    RunCommand::Drain => {
                        child.terminate();
                        kill_deadline = Some(Instant::now() + STOP_TIMEOUT);
                    }
                    RunCommand::Kill => child.kill(),
                },
                () = sleep_until(kill_deadline), if kill_deadline.is_some() => {
                    log::warn!("mongod did not stop in time, killing it");
                    kill_deadline = None;
                    child.kill();
                }
            }
        };
        let status = status.map_or_else(|e| Chain(&e).to_string(), |status: ExitStatus| status.to_string());
        log::info!(reason = status.as_str(); "mongod process exited");
        // Read all output first.
        child.last_line().await;
        ProcessExit::Exited(match last_error.take() {
            Some(last_reason) => format!("{status}: {last_reason}"),
            None => status,
        })
    }
}

/// How one process ended.
enum ProcessExit {
    /// It could not be started.
    SpawnFailed(String),
    /// It has exited.
    Exited(String),
}

/// MongoDB waits 15 seconds for running operations, then writes all data to disk.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use headwater_api::secret::Secret;

    use super::*;

    #[test]
    fn files_are_readable_only_by_their_owner() {
        let data_dir = std::env::temp_dir().join(format!("headwaterd-mongod-{}", std::process::id()));
        std::fs::create_dir_all(&data_dir).unwrap();
        let config = MongodConfig::new(&data_dir, "127.0.0.1:1".parse().unwrap(), "s".to_owned());
        let keys = ClusterKeys::derive(&Secret::new("0123456789abcdef".to_owned()), "demo").unwrap();
        for _ in 0..2 {
            MongodProcess::prepare(Path::new("mongod"), &config, &keys).unwrap();
            let mode = |name: &str| std::fs::metadata(data_dir.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode("mongod.key"), mode("mongod.conf"), mode("mongodb")), (0o600, 0o600, 0o700));
        }
        assert_eq!(std::fs::read_to_string(data_dir.join("mongod.key")).unwrap().trim_end(), keys.key_file.reveal());
        std::fs::remove_dir_all(&data_dir).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn missing_program_is_reported_once_and_retried_until_stopped() {
        let mongod = MongodProcess { program: "/nonexistent/mongod".into(), config_file: "/nonexistent/conf".into() };
        let (command_tx, command_rx) = watch::channel(RunCommand::Serve);
        let mut reasons = Vec::new();
        {
            let running = mongod.run(command_rx, |change| reasons.push(change.unwrap_err()));
            assert!(tokio::time::timeout(Duration::from_secs(600), running).await.is_err(), "it gave up");
        }
        assert_eq!(reasons.len(), 1);
        assert!(reasons[0].starts_with("could not run /nonexistent/mongod"), "{reasons:?}");
        command_tx.send_replace(RunCommand::Drain);
        mongod.run(command_tx.subscribe(), |_| {}).await;
    }
}
