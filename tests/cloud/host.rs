//! One host: a network namespace with an address, in which programs run and sockets are opened, and whose network can be
//! cut in parts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};

use crate::place::{Cable, Keeper, Place, enter};

/// A host. Dropped = its network is gone.
#[derive(Debug)]
pub(crate) struct Host {
    keeper: Keeper,
    cable: Cable,
    address: Ipv4Addr,
}

impl Host {
    /// A host behind the switch, with this last byte of its address.
    pub(crate) fn new(place: &Place, last: u8) -> anyhow::Result<Self> {
        Self::with(place, last, Keeper::network()?)
    }

    /// The same; whatever runs in it ends with it.
    pub(crate) fn with_processes(place: &Place, last: u8) -> anyhow::Result<Self> {
        Self::with(place, last, Keeper::network_and_processes()?)
    }

    fn with(place: &Place, last: u8, keeper: Keeper) -> anyhow::Result<Self> {
        let address = place.address(last);
        let cable = place.connect(&keeper, address)?;
        Ok(Self { keeper, cable, address })
    }

    /// As the others reach it.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// One of its ports.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), port)
    }

    /// Gives the host another address besides.
    pub(crate) fn add_address(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        enter(self.keeper.pid(), &["ip", "address", "add", &format!("{address}/32"), "dev", "lo"])
    }

    /// The start of a command line that runs a program here and ends it with this one.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.pid().to_string(), "--net", "--"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// The same, among the host's own processes (of a host made `with_processes`).
    pub(crate) fn command_among_processes(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.pid().to_string(), "--net", "--pid", "--mount", "--"]).arg(program);
        command
    }

    /// A listener on one of its addresses.
    pub(crate) fn listen(&self, address: SocketAddr) -> anyhow::Result<TcpListener> {
        self.within(move || TcpListener::bind(address))?.with_context(|| format!("could not listen on {address}"))
    }

    /// A connection that begins at this host.
    pub(crate) fn connect(&self, address: SocketAddr) -> anyhow::Result<TcpStream> {
        Ok(self.within(move || TcpStream::connect_timeout(&address, Duration::from_secs(5)))??)
    }

    /// A thread belongs to one network at a time, so this takes a thread of its own.
    fn within<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.keeper.pid()))?;
        let thread = std::thread::spawn(move || setns(network, CloneFlags::CLONE_NEWNET).map(|()| act()));
        Ok(thread.join().ok().context("the thread in the namespace panicked")??)
    }

    /// From now on nothing passes between this host and `other`, without a word.
    pub(crate) fn cut(&self, other: Ipv4Addr) -> anyhow::Result<()> {
        let rules =
            format!("add rule inet walls in ip saddr {other} drop; add rule inet walls out ip daddr {other} drop");
        let chain =
            |name: &str, hook: &str| format!("add chain inet walls {name} {{ type filter hook {hook} priority 0; }}; ");
        let text = format!("add table inet walls; {}{}{rules}", chain("in", "input"), chain("out", "output"));
        enter(self.keeper.pid(), &["nft", &text])
    }

    /// From now on so many of a hundred packets are lost, in each direction.
    pub(crate) fn lose(&self, percent: u8) -> anyhow::Result<()> {
        self.cable.lose(percent)
    }

    /// Everything passes again.
    pub(crate) fn heal(&self) -> anyhow::Result<()> {
        self.cable.heal()?;
        enter(self.keeper.pid(), &["nft", "add table inet walls; delete table inet walls"])
    }
}
