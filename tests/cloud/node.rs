//! A node of the test cluster: a host with an instance metadata service at 169.254.169.254 and the
//! built `headwaterd`, like an instance of an Auto Scaling group.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use headwater_api::control::ENDPOINTS_FILE;
use headwater_tests::engine::program_path;
use headwater_tests::metadata::FakeMetadata;
use headwater_tests::process::Process;
use headwater_tests::{http, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Host;
use crate::network::Network;

/// The key that publishers of the cluster need.
pub(crate) const PUBLISH_KEY: &str = "publish-key-of-the-test-cluster";

/// Role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Accepts publishers.
    Origin,
    /// Serves viewers.
    Edge,
    /// Runs a member of the registry's replica set and serves no media.
    Registry,
}

impl Role {
    /// The value of the role tag.
    pub(crate) fn tag_value(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Edge => "edge",
            Self::Registry => "registry",
        }
    }

    /// Name of its Auto Scaling group. Registry nodes are not in a group.
    pub(crate) fn group(self) -> Option<&'static str> {
        match self {
            Self::Origin => Some("origins"),
            Self::Edge => Some("edges"),
            Self::Registry => None,
        }
    }
}

/// Parameters of a node.
pub(crate) struct NodeSpec<'a> {
    /// Display name, such as `edge-2`.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Last byte of its address.
    pub(crate) last: u8,
    /// Tags in addition to role, cluster and group.
    pub(crate) tags: &'a [(&'a str, &'a str)],
    /// TOML appended to its configuration file.
    pub(crate) settings: String,
    /// Environment variables with the AWS endpoints.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Folder for its files.
    pub(crate) folder: PathBuf,
}

/// A node, running or not. Dropping it kills the node and removes its host.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) role: Role,
    host: Host,
    metadata: std::sync::Arc<FakeMetadata>,
    settings: String,
    environment: Vec<(&'static str, String)>,
    folder: PathBuf,
    id: String,
    daemon: Option<Process>,
}

impl Node {
    /// Creates the host; [`Node::start`] starts the node.
    pub(crate) fn new(network: &Network, spec: NodeSpec<'_>) -> anyhow::Result<Self> {
        let host = Host::new(network, spec.last)?;
        host.add_address(METADATA_ADDRESS.0)?;
        let mut tags = vec![("headwater:role", spec.role.tag_value()), ("headwater:cluster", CLUSTER_NAME)];
        tags.extend(spec.role.group().map(|group| ("aws:autoscaling:groupName", group)));
        tags.extend(spec.tags);
        let metadata = FakeMetadata::start_on(host.listen(SocketAddr::from(METADATA_ADDRESS))?, &tags)?;
        metadata.change(|s| s.local_ipv4 = host.address().to_string());
        std::fs::create_dir_all(&spec.folder)?;
        Ok(Self {
            name: spec.name,
            role: spec.role,
            host,
            metadata: std::sync::Arc::new(metadata),
            settings: spec.settings,
            environment: spec.environment,
            folder: spec.folder,
            id: String::new(),
            daemon: None,
        })
    }

    /// Starts the node as instance `id`. An instance that ran before with the same
    /// id keeps its disk.
    pub(crate) fn start(&mut self, id: &str) -> anyhow::Result<()> {
        self.kill();
        self.metadata.change(|s| id.clone_into(&mut s.id));
        id.clone_into(&mut self.id);
        let data = self.folder.join(id);
        // All nodes share this machine's CPUs, so their CPU load means nothing for a single node.
        let config = format!(
            "[limits]\ncpu_percent = 100\n[node]\ndata_dir = {data:?}\n[metadata]\nrequired = true\n{}",
            self.settings
        );
        // A file from an earlier run names the addresses of an engine that no longer exists.
        let _ = std::fs::remove_file(data.join(ENDPOINTS_FILE));
        let file = self.folder.join("node.toml");
        std::fs::write(&file, config)?;
        program_path("headwater-engine")?;
        let mut command = self.host.command(program_path("headwaterd")?);
        command.args(["run", "--config"]).arg(file).env("HEADWATER_LOG", "info");
        // Without credentials, no request can reach a real account.
        command.env("AWS_EC2_METADATA_DISABLED", "true").env_remove("NOTIFY_SOCKET");
        command.envs(self.environment.iter().cloned());
        self.daemon = Some(Process::start_logged(&mut command, &self.log_path())?);
        Ok(())
    }

    /// Waits until the node logs that it is ready and its `/readyz` answers 200.
    pub(crate) fn wait_ready(&self) -> anyhow::Result<()> {
        self.daemon()?.wait_line("node ready").with_context(|| self.name.clone())?;
        wait::until(&format!("{} to be ready", self.name), || self.is_ready().then_some(()))
    }

    /// True if its `/readyz` answers 200. A frozen node answers nothing.
    pub(crate) fn is_ready(&self) -> bool {
        http::get_within(self.health(), "/readyz", READY_TIMEOUT).is_ok_and(|a| a.status == 200)
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// If the node was not started or was killed.
    pub(crate) fn daemon(&self) -> anyhow::Result<&Process> {
        self.daemon.as_ref().with_context(|| format!("{} is not running", self.name))
    }

    /// True if the daemon runs.
    pub(crate) fn is_running(&self) -> bool {
        self.daemon.as_ref().is_some_and(Process::is_running)
    }

    /// Kills the daemon and its engine or mongod with SIGKILL. The kernel closes the connections.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.daemon = None;
    }

    /// Sends a signal to the daemon and to its engine or mongod.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(daemon) = &self.daemon else { return };
        if daemon.is_running() {
            // The daemon starts its children from its main thread.
            let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
            let children = std::fs::read_to_string(children).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                // The child may already have exited.
                let _ = kill(Pid::from_raw(child), signal);
            }
        }
        daemon.signal(signal);
    }

    /// The instance id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The log file, which all runs of the node append to.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The host of the node.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// The instance metadata service of the node.
    pub(crate) fn metadata(&self) -> &std::sync::Arc<FakeMetadata> {
        &self.metadata
    }

    /// Address of its HTTP listener.
    pub(crate) fn http(&self) -> SocketAddr {
        self.host.socket_address(5080)
    }

    /// Address of its HTTPS listener.
    pub(crate) fn https(&self) -> SocketAddr {
        self.host.socket_address(5443)
    }

    /// Address of its RTMP listener.
    pub(crate) fn rtmp(&self) -> SocketAddr {
        self.host.socket_address(1935)
    }

    /// URL for publishing to this node, with the publish key.
    pub(crate) fn publish_url(&self, stream: &str) -> String {
        format!("rtmp://{}/{stream}?key={PUBLISH_KEY}", self.rtmp())
    }

    /// Address of its relay listener.
    pub(crate) fn relay(&self) -> SocketAddr {
        self.host.socket_address(5000)
    }

    /// Address of its health and metrics listener.
    pub(crate) fn health(&self) -> SocketAddr {
        self.host.socket_address(5090)
    }

    /// The value of a metric, summed over all labels; 0 if it is absent.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = http::get(self.health(), "/metrics")?.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Name of the cluster that all nodes belong to.
pub(crate) const CLUSTER_NAME: &str = "cloud";
/// Of a request for the readiness of a node. A busy one needs less.
const READY_TIMEOUT: Duration = Duration::from_secs(3);
const METADATA_ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::new(169, 254, 169, 254), 80);
