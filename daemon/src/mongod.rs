//! Runs the database of a registry node: one process at a time, started again when it ends by itself, ended in order when told.
//!
//! Started and watched as the engine is, with two differences. It never gives up: whoever is to mend a database should find it
//! up once he has. And silence is no reason to kill it: a database that recovers after a crash says nothing for minutes.
//! What it says of its replica set is for `keeper.rs`, and who belongs to that for `membership.rs`.

mod conf;
mod entry;
mod keeper;
mod key;
mod membership;
mod output;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use headwater_api::error::Chain;
use tokio::process::Command;
use tokio::sync::watch;

use crate::backoff::{Backoff, LONGEST_WAIT};
use crate::child::Child;
use crate::engine::{Order, next_order, sleep_until};
use crate::join;
pub(crate) use conf::Layout;
pub(crate) use entry::Entry;
pub(crate) use keeper::{KEEPER, Keeper, Known, Place, step_aside};
pub(crate) use key::{Keys, TooShort};
use output::Output;

/// The database cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("could not write {}", path.display())]
pub(crate) struct PrepareError {
    path: PathBuf,
    source: io::Error,
}

/// The database's process of this node.
#[derive(Debug)]
pub(crate) struct Mongod {
    program: PathBuf,
    conf: PathBuf,
}

impl Mongod {
    /// Writes its configuration and its key. Nothing runs yet.
    pub(crate) fn prepare(program: &Path, layout: &Layout, keys: &Keys) -> Result<Self, PrepareError> {
        let (folder, conf) = (layout.database(), layout.file());
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| PrepareError { path: folder, source })?;
        for (name, text) in [(conf::KEY_NAME, keys.file.expose()), (conf::CONF_NAME, layout.text().trim_end())] {
            join::write_private(layout.data_dir(), name, text)
                .map_err(|source| PrepareError { path: layout.data_dir().join(name), source })?;
        }
        Ok(Self { program: program.to_owned(), conf })
    }

    /// Keeps it running until it is ordered to end. `lost` hears why it does not run, each time.
    pub(crate) async fn run(&self, mut orders: watch::Receiver<Order>, mut lost: impl FnMut(&str)) {
        let mut backoff = Backoff::default();
        let mut said = String::new();
        while *orders.borrow_and_update() == Order::Serve {
            let began = Instant::now();
            let ending = self.live(&mut orders).await;
            if *orders.borrow() != Order::Serve {
                break;
            }
            let wait = backoff.after(Some(began.elapsed())).unwrap_or(LONGEST_WAIT);
            match ending {
                // The same mistake again and again is said once.
                Ending::NotStarted(why) if why == said => {}
                Ending::NotStarted(why) => {
                    log::warn!(err = why.as_str(); "out of service");
                    lost(&why);
                    said = why;
                }
                Ending::Ended(why) => {
                    log::warn!(err = why.as_str(), wait_ms = wait.as_millis(); "mongod ended by itself, starting it again");
                    lost(&format!("mongod ended: {why}"));
                    said.clear();
                }
            }
            // An order ends the wait early.
            let _ = tokio::time::timeout(wait, orders.changed()).await;
        }
    }

    /// One process from start to end.
    async fn live(&self, orders: &mut watch::Receiver<Order>) -> Ending {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.conf).stdin(Stdio::null());
        let mut output = Output::default();
        let complaint = output.complaint();
        let mut child = match Child::start(command, move |bytes| output.hear(bytes)) {
            Ok(child) => child,
            Err(e) => {
                let program = self.program.display();
                return Ending::NotStarted(format!(
                    "could not run {program}, which a registry node needs; program under [mongod] says where it is: {}",
                    Chain(&e)
                ));
            }
        };
        log::info!(pid = child.pid(); "mongod started");
        let mut until = None;
        let status = loop {
            tokio::select! {
                status = child.ended() => break status,
                order = next_order(orders) => match order {
                    Order::Serve => {}
                    Order::Drain => {
                        child.terminate();
                        until = Some(Instant::now() + END_PATIENCE);
                    }
                    Order::Kill => child.kill(),
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
        // All that it said must have been heard.
        child.last_line().await;
        Ending::Ended(match complaint.take() {
            Some(said) => format!("{status}: {said}"),
            None => status,
        })
    }
}

/// How one life ended.
enum Ending {
    /// It never began.
    NotStarted(String),
    /// The process is gone.
    Ended(String),
}

/// MongoDB first lets others finish for 15 seconds, then writes all to disk.
const END_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::aws::Secret;

    #[test]
    fn its_files_are_its_owners_alone() {
        let folder = std::env::temp_dir().join(format!("headwaterd-mongod-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let layout = Layout::new(&folder, "127.0.0.1:1".parse().unwrap(), "s".to_owned());
        let keys = Keys::derive(&Secret::new("0123456789abcdef".to_owned()), "demo").unwrap();
        for _ in 0..2 {
            Mongod::prepare(Path::new("mongod"), &layout, &keys).unwrap();
            let mode = |name: &str| std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode("mongod.key"), mode("mongod.conf"), mode("mongodb")), (0o600, 0o600, 0o700));
        }
        assert_eq!(std::fs::read_to_string(folder.join("mongod.key")).unwrap().trim_end(), keys.file.expose());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_is_not_there_is_said_once_and_tried_until_it_is_told_to_end() {
        let mongod = Mongod { program: "/nonexistent/mongod".into(), conf: "/nonexistent/conf".into() };
        let (orders, told) = watch::channel(Order::Serve);
        let mut said = Vec::new();
        {
            let running = mongod.run(told, |why| said.push(why.to_owned()));
            assert!(tokio::time::timeout(Duration::from_secs(600), running).await.is_err(), "it gave up");
        }
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("could not run /nonexistent/mongod"), "{said:?}");
        let (_orders, told) = (orders.send_replace(Order::Drain), orders.subscribe());
        mongod.run(told, |_| {}).await;
    }
}
