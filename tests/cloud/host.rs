//! A simulated host: a network namespace with an address, in which programs run and sockets are
//! opened, and whose network can be partitioned.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};

use crate::network::{Namespace, Network, VethLink, run_in_network};

/// A host. Dropping it removes its network.
#[derive(Debug)]
pub(crate) struct Host {
    namespace: Namespace,
    link: VethLink,
    address: Ipv4Addr,
}

impl Host {
    /// Creates a host behind the bridge; `last` is the last byte of its address.
    pub(crate) fn new(network: &Network, last: u8) -> anyhow::Result<Self> {
        Self::with_namespace(network, last, Namespace::network()?)
    }

    /// Like [`Host::new`], with a PID namespace: all processes in it end with the host.
    pub(crate) fn with_pid_namespace(network: &Network, last: u8) -> anyhow::Result<Self> {
        Self::with_namespace(network, last, Namespace::network_and_pid()?)
    }

    fn with_namespace(network: &Network, last: u8, namespace: Namespace) -> anyhow::Result<Self> {
        let address = network.address(last);
        let link = network.connect(&namespace, address)?;
        Ok(Self { namespace, link, address })
    }

    /// The host's address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The host's address with a port.
    pub(crate) fn socket_address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), port)
    }

    /// Adds another address to the host.
    pub(crate) fn add_address(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        run_in_network(self.namespace.pid(), &["ip", "address", "add", &format!("{address}/32"), "dev", "lo"])
    }

    /// A command that runs `program` in this host's network and is killed with this process.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.namespace.pid().to_string(), "--net", "--"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Like [`Host::command`], in the host's PID namespace (see [`Host::with_pid_namespace`]).
    pub(crate) fn command_in_pid_namespace(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.namespace.pid().to_string(), "--net", "--pid", "--mount", "--"]).arg(program);
        command
    }

    /// Opens a listener on one of the host's addresses.
    pub(crate) fn listen(&self, address: SocketAddr) -> anyhow::Result<TcpListener> {
        self.run_in_namespace(move || TcpListener::bind(address))?
            .with_context(|| format!("could not listen on {address}"))
    }

    /// Opens a connection from this host.
    pub(crate) fn connect(&self, address: SocketAddr) -> anyhow::Result<TcpStream> {
        Ok(self.run_in_namespace(move || TcpStream::connect_timeout(&address, Duration::from_secs(5)))??)
    }

    /// Runs `act` in the host's network, on a new thread: a network namespace is a
    /// property of a thread.
    fn run_in_namespace<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.namespace.pid()))?;
        let thread = std::thread::spawn(move || setns(network, CloneFlags::CLONE_NEWNET).map(|()| act()));
        Ok(thread.join().ok().context("the thread in the namespace panicked")??)
    }

    /// Silently drops all packets between this host and `other`.
    pub(crate) fn partition_from(&self, other: Ipv4Addr) -> anyhow::Result<()> {
        let rules = format!(
            "add rule inet partition in ip saddr {other} drop; add rule inet partition out ip daddr {other} drop"
        );
        let chain = |name: &str, hook: &str| {
            format!("add chain inet partition {name} {{ type filter hook {hook} priority 0; }}; ")
        };
        let text = format!("add table inet partition; {}{}{rules}", chain("in", "input"), chain("out", "output"));
        run_in_network(self.namespace.pid(), &["nft", &text])
    }

    /// Drops this percentage of packets, in each direction.
    pub(crate) fn set_packet_loss(&self, percent: u8) -> anyhow::Result<()> {
        self.link.set_packet_loss(percent)
    }

    /// Ends all partitions and packet loss.
    pub(crate) fn restore_network(&self) -> anyhow::Result<()> {
        self.link.clear_packet_loss()?;
        run_in_network(self.namespace.pid(), &["nft", "add table inet partition; delete table inet partition"])
    }
}
