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
use tokio::process::Command;
use tokio::sync::watch;

use crate::cluster::cluster_secrets;
use crate::process::backoff::{Backoff, MAX_DELAY};
use crate::process::child::Child;
use crate::process::engine::{RunCommand, next_command, sleep_until};
use crate::registry_node::config;
pub(crate) use crate::registry_node::config::MongodConfig;
pub(crate) use crate::registry_node::keyfile::{ClusterKeys, SecretTooShort};
use crate::registry_node::log_output::LogForwarder;
pub(crate) use crate::registry_node::reconciler::{RECONCILER_USER, ReplicaSetReconciler, DatabaseStatus, DatabaseState, step_down};
pub(crate) use crate::registry_node::registration::SelfRegistration;

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
    conf: PathBuf,
}

impl MongodProcess {
    /// Writes its configuration and key file. Starts nothing.
    pub(crate) fn prepare(program: &Path, layout: &MongodConfig, keys: &ClusterKeys) -> Result<Self, PrepareError> {
        let (folder, conf) = (layout.database_dir(), layout.config_file());
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| PrepareError { path: folder, source })?;
        for (name, text) in [(config::KEY_NAME, keys.key_file.expose()), (config::CONFIG_NAME, layout.to_yaml().trim_end())] {
            cluster_secrets::write_private(layout.data_dir(), name, text)
                .map_err(|source| PrepareError { path: layout.data_dir().join(name), source })?;
        }
        Ok(Self { program: program.to_owned(), conf })
    }

    /// Keeps mongod running until the command is no longer [`RunCommand::Serve`]. `on_exit`
    /// receives the reason each time it stops running.
    pub(crate) async fn run(&self, mut orders: watch::Receiver<RunCommand>, mut lost: impl FnMut(&str)) {
        let mut backoff = Backoff::default();
        let mut said = String::new();
        while *orders.borrow_and_update() == RunCommand::Serve {
            let began = Instant::now();
            let ending = self.run_process(&mut orders).await;
            if *orders.borrow() != RunCommand::Serve {
                break;
            }
            let wait = backoff.next_delay(Some(began.elapsed())).unwrap_or(MAX_DELAY);
            match ending {
                // A repeated failure is logged once.
                ProcessExit::SpawnFailed(why) if why == said => {}
                ProcessExit::SpawnFailed(why) => {
                    log::warn!(err = why.as_str(); "out of service");
                    lost(&why);
                    said = why;
                }
                ProcessExit::Exited(why) => {
                    log::warn!(err = why.as_str(), wait_ms = wait.as_millis(); "mongod ended by itself, starting it again");
                    lost(&format!("mongod ended: {why}"));
                    said.clear();
                }
            }
            // A command ends the wait early.
            let _ = tokio::time::timeout(wait, orders.changed()).await;
        }
    }

    /// Runs one process from start to exit.
    async fn run_process(&self, orders: &mut watch::Receiver<RunCommand>) -> ProcessExit {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.conf).stdin(Stdio::null());
        let mut output = LogForwarder::default();
        let complaint = output.last_error();
        let mut child = match Child::start(command, move |bytes| output.push(bytes)) {
            Ok(child) => child,
            Err(e) => {
                let program = self.program.display();
                return ProcessExit::SpawnFailed(format!(
                    "could not run {program}, which a registry node needs; program under [mongod] says where it is: {}",
                    Chain(&e)
                ));
            }
        };
        log::info!(pid = child.pid(); "mongod started");
        let mut until = None;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                order = next_command(orders) => match order {
                    RunCommand::Serve => {}
                    RunCommand::Drain => {
                        child.terminate();
                        until = Some(Instant::now() + STOP_TIMEOUT);
                    }
                    RunCommand::Kill => child.kill(),
                },
                () = sleep_until(until), if until.is_some() => {
                    log::warn!("mongod did not end in time, killing it");
                    until = None;
                    child.kill();
                }
            }
        };
        let status = status.map_or_else(|e| Chain(&e).to_string(), |status: ExitStatus| status.to_string());
        log::info!(reason = status.as_str(); "mongod has ended");
        // Read all output first.
        child.last_line().await;
        ProcessExit::Exited(match complaint.take() {
            Some(said) => format!("{status}: {said}"),
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

    use super::*;
    use crate::aws::client::Secret;

    #[test]
    fn its_files_are_its_owners_alone() {
        let folder = std::env::temp_dir().join(format!("headwaterd-mongod-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let layout = MongodConfig::new(&folder, "127.0.0.1:1".parse().unwrap(), "s".to_owned());
        let keys = ClusterKeys::derive(&Secret::new("0123456789abcdef".to_owned()), "demo").unwrap();
        for _ in 0..2 {
            MongodProcess::prepare(Path::new("mongod"), &layout, &keys).unwrap();
            let mode = |name: &str| std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode("mongod.key"), mode("mongod.conf"), mode("mongodb")), (0o600, 0o600, 0o700));
        }
        assert_eq!(std::fs::read_to_string(folder.join("mongod.key")).unwrap().trim_end(), keys.key_file.expose());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_is_not_there_is_said_once_and_tried_until_it_is_told_to_end() {
        let mongod = MongodProcess { program: "/nonexistent/mongod".into(), conf: "/nonexistent/conf".into() };
        let (orders, told) = watch::channel(RunCommand::Serve);
        let mut said = Vec::new();
        {
            let running = mongod.run(told, |why| said.push(why.to_owned()));
            assert!(tokio::time::timeout(Duration::from_secs(600), running).await.is_err(), "it gave up");
        }
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("could not run /nonexistent/mongod"), "{said:?}");
        let (_orders, told) = (orders.send_replace(RunCommand::Drain), orders.subscribe());
        mongod.run(told, |_| {}).await;
    }
}
