//! Starts the built `headwaterd run` with a configuration file: a whole node on this machine, on
//! free ports.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use headwater_api::Config;
use headwater_api::control::Endpoints;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::{Options, program_path, read_endpoints};
use crate::process::Process;
use crate::temp::TempDir;
use crate::wait;

/// A running daemon with its engine. Both are killed on drop.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    data_dir: PathBuf,
    /// Removed with the daemon, if it was created for it.
    folder: Option<TempDir>,
}

impl Daemon {
    /// Starts a daemon; [`Daemon::wait_endpoints`] waits for its engine.
    ///
    /// # Errors
    /// If it is not built or cannot be started.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
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
        let file = folder.join(CONFIG_FILE_NAME);
        std::fs::write(&file, config_text(&options.config)?)?;
        program_path("headwater-engine")?;
        let mut command_line =
            options.command_prefix.iter().map(OsString::from).chain([program_path("headwaterd")?.into_os_string()]);
        let process = Process::start(
            Command::new(command_line.next().unwrap_or_default())
                .args(command_line)
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
    pub fn wait_endpoints(&self, except_pid: Option<u32>) -> anyhow::Result<Endpoints> {
        wait::until("an engine's endpoints file", || {
            read_endpoints(&self.data_dir).ok().filter(|e| Some(e.pid) != except_pid)
        })
    }

    /// Runs another `headwaterd ARGUMENTS --config` with this node's configuration to its end.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn run_command(&self, arguments: &[&str], environment: &[(&'static str, String)]) -> anyhow::Result<Output> {
        let file = self.data_dir.with_file_name(CONFIG_FILE_NAME);
        let mut command = Command::new(program_path("headwaterd")?);
        command.args(arguments).arg("--config").arg(file).env("AWS_EC2_METADATA_DISABLED", "true");
        Ok(command.envs(environment.iter().cloned()).output()?)
    }

    /// The publish key of an app, from the running engine.
    ///
    /// # Errors
    /// If the engine does not answer, or the app has no key.
    pub fn publish_key(&self, app: &str) -> anyhow::Result<String> {
        let output = self.run_command(&["app", "show", app, "--json"], &[])?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let settings: headwater_api::rest::AppSettings = serde_json::from_slice(&output.stdout)?;
        let key = settings.publish_key.flatten().ok_or_else(|| anyhow::anyhow!("{app} has no publish key"))?;
        Ok(key.reveal().to_owned())
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
fn config_text(config: &Config) -> anyhow::Result<String> {
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
const CONFIG_FILE_NAME: &str = "node.toml";
