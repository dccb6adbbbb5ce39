//! Starts the built `headwaterd run` with a configuration file: a whole node on this machine, on
//! free ports.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use headwater_api::Config;
use headwater_api::endpoints::Endpoints;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::{Options, program, read_endpoints};
use crate::process::Process;
use crate::temp::Folder;
use crate::wait;

/// A running daemon with its engine. Both are killed on drop.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    data_dir: PathBuf,
    /// Removed with the daemon, if it was created for it.
    folder: Option<Folder>,
}

impl Daemon {
    /// Starts a daemon; [`Daemon::wait_endpoints`] waits for its engine.
    ///
    /// # Errors
    /// If it is not built or cannot be started.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let mut daemon = Self::start_in(options, folder.path())?;
        daemon.folder = Some(folder);
        Ok(daemon)
    }

    /// Starts a daemon with its files in a folder that outlives it.
    ///
    /// # Errors
    /// If it is not built or cannot be started.
    pub fn start_in(mut options: Options, folder: &Path) -> anyhow::Result<Self> {
        let data_dir = folder.join("data");
        options.config.node.data_dir.clone_from(&data_dir);
        let file = folder.join(FILE_NAME);
        std::fs::write(&file, text(&options.config)?)?;
        program("headwater-engine")?;
        let mut words = options.inside.iter().map(OsString::from).chain([program("headwaterd")?.into_os_string()]);
        let process = Process::start(
            Command::new(words.next().unwrap_or_default())
                .args(words)
                .args(["run", "--config"])
                .arg(file)
                .env("HEADWATER_LOG", options.log)
                // Without credentials, no request reaches a real account.
                .env("AWS_EC2_METADATA_DISABLED", "true")
                .env_remove("NOTIFY_SOCKET")
                .envs(options.environment),
        )?;
        Ok(Self { process, data_dir, folder: None })
    }

    /// Waits for the endpoints of an engine whose process id is not `except_pid`.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn endpoints(&self, not: Option<u32>) -> anyhow::Result<Endpoints> {
        wait::until("an engine's endpoints file", || {
            read_endpoints(&self.data_dir).ok().filter(|e| Some(e.pid) != not)
        })
    }

    /// Runs another `headwaterd ARGUMENTS --config` with this node's configuration to its end.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn run_beside(&self, arguments: &[&str], environment: &[(&'static str, String)]) -> anyhow::Result<Output> {
        let file = self.data_dir.with_file_name(FILE_NAME);
        let mut command = Command::new(program("headwaterd")?);
        command.args(arguments).arg("--config").arg(file).env("AWS_EC2_METADATA_DISABLED", "true");
        Ok(command.envs(environment.iter().cloned()).output()?)
    }

    /// Sends a signal to the engine and then to the daemon.
    pub fn signal(&self, signal: Signal) {
        let engine = read_endpoints(&self.data_dir).ok().and_then(|e| i32::try_from(e.pid).ok());
        if let Some(engine) = engine.filter(|_| self.process.is_running()) {
            // The engine may have ended.
            let _ = kill(Pid::from_raw(engine), signal);
        }
        self.process.signal(signal);
    }

    /// The daemon's process; its log lines include those of the engine.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The node's data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

/// Serializes the configuration, without role and id where they are the defaults: the daemon reads
/// them from tags only if the file does not set them.
fn text(config: &Config) -> anyhow::Result<String> {
    let mut table = toml::Table::try_from(config)?;
    let default = Config::default().node;
    if let Some(node) = table.get_mut("node").and_then(toml::Value::as_table_mut) {
        if config.node.role == default.role {
            node.remove("role");
        }
        if config.node.id == default.id {
            node.remove("id");
        }
    }
    Ok(toml::to_string(&table)?)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let engine = read_endpoints(&self.data_dir).ok().and_then(|e| i32::try_from(e.pid).ok());
        self.process.signal(Signal::SIGKILL);
        // The engine ends with a killed daemon. If it does not, it must not outlive the test.
        if let Some(pid) = engine {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The configuration file, next to the data folder.
const FILE_NAME: &str = "node.toml";
