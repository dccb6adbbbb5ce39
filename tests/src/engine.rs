//! Starts the built `headwater-engine` without a daemon, with its own data folder and free ports.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::Context as _;
use headwater_api::Config;
use headwater_api::control::{ENDPOINTS_FILE, Endpoints};
use headwater_api::rest::StreamStatus;
use nix::sys::signal::Signal;

use crate::http::{self, Response};
use crate::process::Process;
use crate::temp::TempDir;
use crate::wait::{self, WAIT_TIMEOUT};

/// How to start an engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Configuration. A default `data_dir` is replaced by a new folder.
    pub config: Config,
    /// `HEADWATER_LOG`: `info`, `debug`, …
    pub log: &'static str,
    /// Variables added to the environment of the test.
    pub environment: Vec<(&'static str, String)>,
    /// Start of the command line that runs the engine or the daemon (`unshare --net …`), or empty.
    pub command_prefix: Vec<String>,
}

impl Default for Options {
    /// The defaults of the engine, with free ports and 127.0.0.1 as the only address for viewers.
    fn default() -> Self {
        let mut config = Config::default();
        config.node.addresses = vec![Ipv4Addr::LOCALHOST.into()];
        for listen in
            [&mut config.http.listen, &mut config.http.tls_listen, &mut config.rtmp.listen, &mut config.rtmp.tls_listen]
        {
            listen.set_port(0);
        }
        for listen in [&mut config.relay.listen, &mut config.health.listen] {
            listen.set_port(0);
        }
        config.webrtc.port = 0;
        // Connections to a metadata service are refused immediately.
        config.metadata.endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Self { config, log: "info", environment: Vec::new(), command_prefix: Vec::new() }
    }
}

impl Options {
    /// Returns changed defaults: `Options::with(|c| c.hls.part_ms = …)`.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut options = Self::default();
        change(&mut options.config);
        options
    }
}

/// A running engine. Killed on drop.
#[derive(Debug)]
pub struct Engine {
    process: Process,
    endpoints: Endpoints,
    data_dir: PathBuf,
    _folder: TempDir,
}

impl Engine {
    /// Starts an engine and waits until it serves.
    ///
    /// # Errors
    /// If it is not built, or does not serve within [`WAIT_TIMEOUT`]. The message has its last log
    /// lines.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let (process, folder, data_dir) = spawn(options)?;
        process.wait_line("engine serving")?;
        let endpoints = read_endpoints(&data_dir)?;
        Ok(Self { process, endpoints, data_dir, _folder: folder })
    }

    /// Starts an engine that is expected to fail, and returns its exit code and its output lines.
    ///
    /// # Errors
    /// If it is not built, or still runs after [`WAIT_TIMEOUT`].
    pub fn start_to_fail(options: Options) -> anyhow::Result<(Option<i32>, Vec<String>)> {
        let (process, _folder, _) = spawn(options)?;
        let exit = process.wait_exit(WAIT_TIMEOUT)?;
        Ok((exit.code(), process.lines()))
    }

    /// Its listening addresses; unspecified ones are replaced by loopback.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Address of the web server.
    ///
    /// # Panics
    /// If plain HTTP is off.
    pub fn http(&self) -> SocketAddr {
        self.endpoints.http.expect("plain HTTP is off")
    }

    /// Address of the RTMP server.
    ///
    /// # Panics
    /// If plain RTMP is off.
    pub fn rtmp(&self) -> SocketAddr {
        self.endpoints.rtmp.expect("plain RTMP is off")
    }

    /// Address of health and metrics.
    pub fn health(&self) -> SocketAddr {
        self.endpoints.health
    }

    /// `rtmp://127.0.0.1:PORT/APP/STREAM_ID`.
    pub fn rtmp_url(&self, name: &str) -> String {
        format!("rtmp://{}/{name}", self.rtmp())
    }

    /// `http://127.0.0.1:PORT/PATH`; `path` begins with a slash.
    pub fn http_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http())
    }

    /// Sends a GET request to the web server.
    ///
    /// # Errors
    /// If there is no complete response.
    pub fn get(&self, path: &str) -> anyhow::Result<Response> {
        http::get(self.http(), path)
    }

    /// Status of a stream in the REST API, or `None` if it is not live.
    ///
    /// # Errors
    /// If the response is neither a status nor 404.
    pub fn status(&self, name: &str) -> anyhow::Result<Option<StreamStatus>> {
        status(self.http(), name)
    }

    /// Waits until the stream is live and `ready` returns true for its status.
    ///
    /// # Errors
    /// If that does not happen within [`WAIT_TIMEOUT`].
    pub fn wait_status(
        &self,
        name: &str,
        what: &str,
        ready: impl FnMut(&StreamStatus) -> bool,
    ) -> anyhow::Result<StreamStatus> {
        wait_status(self.http(), name, what, ready)
    }

    /// Waits until the stream has video and audio.
    ///
    /// # Errors
    /// If that does not happen within [`WAIT_TIMEOUT`].
    pub fn wait_live(&self, name: &str) -> anyhow::Result<StreamStatus> {
        self.wait_status(name, "video and audio", |s| s.video.is_some() && s.audio.is_some())
    }

    /// Waits until the stream has ended.
    ///
    /// # Errors
    /// If it is still live after [`WAIT_TIMEOUT`].
    pub fn wait_ended(&self, name: &str) -> anyhow::Result<()> {
        wait::until(&format!("the end of {name}"), || matches!(self.status(name), Ok(None)).then_some(()))
    }

    /// The process, for its log lines.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The engine's data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Current resident memory, in KiB.
    ///
    /// # Errors
    /// If the engine does not run.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = text.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
    }

    /// Panic messages in the engine's output. Expected to be empty.
    pub fn panics(&self) -> Vec<String> {
        self.process.lines().into_iter().filter(|l| l.contains("panicked at")).collect()
    }

    /// Sends SIGTERM and returns the exit status.
    ///
    /// # Errors
    /// If it still runs after [`WAIT_TIMEOUT`].
    pub fn terminate(&self) -> anyhow::Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM);
        self.process.wait_exit(WAIT_TIMEOUT)
    }
}

/// Status of a stream in the REST API at `http`, or `None` if it is not live.
///
/// # Errors
/// If the response is neither a status nor 404.
pub fn status(http: SocketAddr, name: &str) -> anyhow::Result<Option<StreamStatus>> {
    let response = http::get(http, &format!("/rest/v2/streams/{name}"))?;
    match response.status {
        200 => Ok(Some(response.json()?)),
        404 if response.text().contains("stream_not_found") => Ok(None),
        other => anyhow::bail!("status of {name}: {other} {}", response.text()),
    }
}

/// Waits until the stream is live at `http` and `ready` returns true for its status. `what` names
/// the awaited condition.
///
/// # Errors
/// If that does not happen within [`WAIT_TIMEOUT`].
pub fn wait_status(
    http: SocketAddr,
    name: &str,
    what: &str,
    mut ready: impl FnMut(&StreamStatus) -> bool,
) -> anyhow::Result<StreamStatus> {
    let mut last = None;
    wait::until(&format!("{name} to have {what}"), || {
        last = Some(status(http, name));
        last.as_ref().and_then(|s| s.as_ref().ok()).and_then(Option::as_ref).filter(|s| ready(s)).cloned()
    })
    .with_context(|| format!("last response: {last:?}"))
}

/// Path of a first-party program in the target folder of this test.
///
/// # Errors
/// If it is not built.
pub fn program_path(name: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let folder = exe.parent().context("a test program without a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(name);
    anyhow::ensure!(path.is_file(), "{} is missing: run `cargo build --workspace` first", path.display());
    Ok(path)
}

/// Reads the listening addresses of the engine with this data folder; unspecified ones are replaced
/// by loopback.
///
/// # Errors
/// If the file is missing or incomplete.
pub fn read_endpoints(data_dir: &Path) -> anyhow::Result<Endpoints> {
    let path = data_dir.join(ENDPOINTS_FILE);
    let text = std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
    let mut endpoints: Endpoints = serde_json::from_slice(&text)?;
    for address in [&mut endpoints.health]
        .into_iter()
        .chain(endpoints.http.as_mut())
        .chain(endpoints.https.as_mut())
        .chain(endpoints.rtmp.as_mut())
        .chain(endpoints.rtmps.as_mut())
        .chain(endpoints.relay.as_mut())
    {
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
    }
    Ok(endpoints)
}

fn spawn(mut options: Options) -> anyhow::Result<(Process, TempDir, PathBuf)> {
    let folder = TempDir::new()?;
    if options.config.node.data_dir == Config::default().node.data_dir {
        options.config.node.data_dir = folder.path().join("data");
    }
    let file = folder.write("engine.toml", toml::to_string(&options.config)?)?;
    let words =
        options.command_prefix.iter().map(OsString::from).chain([program_path("headwater-engine")?.into_os_string()]);
    let words: Vec<_> = words.chain(["--config".into(), file.into_os_string()]).collect();
    let process = Process::start(
        Command::new(&words[0]).args(&words[1..]).env("HEADWATER_LOG", options.log).envs(options.environment),
    )?;
    Ok((process, folder, options.config.node.data_dir))
}

/// True if this signal ended the process.
pub fn was_ended_by(status: ExitStatus, signal: Signal) -> bool {
    status.signal() == Some(signal as i32)
}
