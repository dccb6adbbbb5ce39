//! A node of the cloud: a host with a metadata service at 169.254.169.254 and the built `headwaterd`, as an instance of an
//! Auto Scaling group would be.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use headwater_api::endpoints;
use headwater_tests::engine::program;
use headwater_tests::metadata::Fake;
use headwater_tests::process::Process;
use headwater_tests::{http, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Host;
use crate::place::Place;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Takes publishers.
    Origin,
    /// Serves viewers.
    Edge,
    /// Runs a member of the registry's replica set, and nothing else.
    Registry,
}

impl Role {
    /// As the tag spells it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Edge => "edge",
            Self::Registry => "registry",
        }
    }

    /// The name of its Auto Scaling group. Registry nodes are launched by hand.
    pub(crate) fn group(self) -> Option<&'static str> {
        match self {
            Self::Origin => Some("origins"),
            Self::Edge => Some("edges"),
            Self::Registry => None,
        }
    }
}

/// What makes a node.
pub(crate) struct Plan<'a> {
    /// For people: `edge-2`.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The last byte of its address.
    pub(crate) last: u8,
    /// Other tags than role, cluster and group.
    pub(crate) tags: &'a [(&'a str, &'a str)],
    /// More tables for its configuration file.
    pub(crate) settings: String,
    /// Where its AWS is.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Its files go below.
    pub(crate) folder: PathBuf,
}

/// A node, running or not. Dropped = killed, with its host.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) role: Role,
    host: Host,
    metadata: std::sync::Arc<Fake>,
    settings: String,
    environment: Vec<(&'static str, String)>,
    folder: PathBuf,
    id: String,
    daemon: Option<Process>,
}

impl Node {
    /// Makes the host; [`Node::start`] starts the node.
    pub(crate) fn new(place: &Place, plan: Plan<'_>) -> anyhow::Result<Self> {
        let host = Host::new(place, plan.last)?;
        host.add_address(METADATA.0)?;
        let mut tags = vec![("headwater:role", plan.role.word()), ("headwater:cluster", CLUSTER)];
        tags.extend(plan.role.group().map(|group| ("aws:autoscaling:groupName", group)));
        tags.extend(plan.tags);
        let metadata = Fake::on(host.listen(SocketAddr::from(METADATA))?, &tags)?;
        metadata.change(|s| s.local_ipv4 = host.address().to_string());
        std::fs::create_dir_all(&plan.folder)?;
        Ok(Self {
            name: plan.name,
            role: plan.role,
            host,
            metadata: std::sync::Arc::new(metadata),
            settings: plan.settings,
            environment: plan.environment,
            folder: plan.folder,
            id: String::new(),
            daemon: None,
        })
    }

    /// Starts it as the instance `id`, with the disk of the instance before it if that has the same id.
    pub(crate) fn start(&mut self, id: &str) -> anyhow::Result<()> {
        self.kill();
        self.metadata.change(|s| id.clone_into(&mut s.id));
        id.clone_into(&mut self.id);
        let data = self.folder.join(id);
        // All nodes share this machine's processors: how busy those are says nothing of one of them.
        let config = format!(
            "[limits]\ncpu_percent = 100\n[node]\ndata_dir = {data:?}\n[metadata]\nrequired = true\n{}",
            self.settings
        );
        // What an earlier life left says where an engine was that is gone.
        let _ = std::fs::remove_file(data.join(endpoints::FILE_NAME));
        let file = self.folder.join("node.toml");
        std::fs::write(&file, config)?;
        program("headwater-engine")?;
        let mut command = self.host.command(program("headwaterd")?);
        command.args(["run", "--config"]).arg(file).env("HEADWATER_LOG", "info");
        // No credentials anywhere: nothing of this reaches a real account.
        command.env("AWS_EC2_METADATA_DISABLED", "true").env_remove("NOTIFY_SOCKET");
        command.envs(self.environment.iter().cloned());
        self.daemon = Some(Process::start_logged(&mut command, &self.log())?);
        Ok(())
    }

    /// Waits until it says that it is ready, and its `/readyz` agrees.
    pub(crate) fn wait_ready(&self) -> anyhow::Result<()> {
        self.daemon()?.line("node ready").with_context(|| self.name.clone())?;
        wait::until(&format!("{} to be ready", self.name), || self.is_ready().then_some(()))
    }

    /// True if its `/readyz` says so.
    pub(crate) fn is_ready(&self) -> bool {
        http::get(self.health(), "/readyz").is_ok_and(|a| a.status == 200)
    }

    /// Its process.
    pub(crate) fn daemon(&self) -> anyhow::Result<&Process> {
        self.daemon.as_ref().with_context(|| format!("{} does not run", self.name))
    }

    /// True if its daemon does.
    pub(crate) fn is_running(&self) -> bool {
        self.daemon.as_ref().is_some_and(Process::is_running)
    }

    /// The whole node at once, the daemon and its engine or mongod: SIGKILL. Connections are closed by the kernel, nobody says good-bye.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.daemon = None;
    }

    /// Sends a signal to the daemon and to the engine or mongod that it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(daemon) = &self.daemon else { return };
        if daemon.is_running() {
            // Its main thread is the one that starts them.
            let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
            let children = std::fs::read_to_string(children).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                // It may have ended by itself.
                let _ = kill(Pid::from_raw(child), signal);
            }
        }
        daemon.signal(signal);
    }

    /// The id of the instance that it is.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The file with all that its lives wrote.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Its host.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Its metadata service.
    pub(crate) fn metadata(&self) -> &std::sync::Arc<Fake> {
        &self.metadata
    }

    /// Its web server.
    pub(crate) fn http(&self) -> SocketAddr {
        self.host.at(5080)
    }

    /// Its RTMP server.
    pub(crate) fn rtmp(&self) -> SocketAddr {
        self.host.at(1935)
    }

    /// Its relay.
    pub(crate) fn relay(&self) -> SocketAddr {
        self.host.at(5000)
    }

    /// Its health and metrics.
    pub(crate) fn health(&self) -> SocketAddr {
        self.host.at(5090)
    }

    /// The value of one of its metrics, all labels together; 0 if it is not there.
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

/// All nodes' cluster.
pub(crate) const CLUSTER: &str = "cloud";
const METADATA: (Ipv4Addr, u16) = (Ipv4Addr::new(169, 254, 169, 254), 80);
