//! The network: a bridge and hosts behind it, all of them namespaces of this machine, and one veth
//! pair to this program.
//!
//! ```text
//!   this program --- veth hwPID ---[ bridge ]--- host 10.213.K.10, .11, .12, .21 ...
//!   (10.213.K.1)
//! ```
//!
//! Each namespace exists as long as a process that sleeps in it and is killed with this program,
//! however it ends. The kernel removes all links with their namespaces, so nothing is left behind.
//! Must not know nodes.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use headwater_tests::process::Process;

/// A process that holds namespaces open. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct Namespace {
    _process: Process,
    pid: u32,
}

impl Namespace {
    /// Creates a network namespace.
    pub(crate) fn network() -> anyhow::Result<Self> {
        let process = spawn_holder(&["--net"])?;
        let pid = process.pid();
        Ok(Self { _process: process, pid })
    }

    /// Creates a network and a PID namespace; all processes in it end with it.
    pub(crate) fn network_and_pid() -> anyhow::Result<Self> {
        let process = spawn_holder(&["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"])?;
        let outer = process.pid();
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
        let pid = children.split_whitespace().next().context("unshare has no child process")?.parse()?;
        Ok(Self { _process: process, pid })
    }

    /// Process id through which the namespaces are entered.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

fn spawn_holder(unshare_flags: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare"]).args(unshare_flags);
    let process = Process::start(command.args(["--", "sh", "-c", "echo up; exec sleep infinity"]))?;
    process.wait_line("up").context("could not create a network namespace")?;
    Ok(process)
}

/// The bridge and its addresses. Dropping it removes the bridge and all links.
#[derive(Debug)]
pub(crate) struct Network {
    bridge: Namespace,
    /// Third byte of all addresses.
    subnet: u8,
}

impl Network {
    /// Creates the bridge and the link to this program.
    ///
    /// # Errors
    /// If namespaces cannot be created; root is required.
    pub(crate) fn new() -> anyhow::Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root: start it with sudo");
        run("ip", &["link", "set", "lo", "up"])?;
        let taken = output("ip", &["-4", "-o", "address"])?;
        let first = std::process::id() % 250;
        let subnet = (0..250)
            .map(|n| u8::try_from((first + n) % 250).unwrap_or_default())
            .find(|subnet| !taken.contains(&format!(" 10.213.{subnet}.")))
            .context("all subnets of the test cluster (10.213.0.0/16) are in use")?;
        let network = Self { bridge: Namespace::network()?, subnet };
        let pid = network.bridge.pid().to_string();
        network.run_in_bridge(&["ip", "link", "add", "br0", "type", "bridge"])?;
        network.run_in_bridge(&["ip", "link", "set", "br0", "up"])?;
        let link = format!("hw{}", std::process::id());
        run("ip", &["link", "add", &link, "type", "veth", "peer", "name", "uplink", "netns", &pid])?;
        run("ip", &["address", "add", &format!("{}/24", network.gateway()), "dev", &link])?;
        run("ip", &["link", "set", &link, "up"])?;
        network.attach_port("uplink")?;
        Ok(network)
    }

    /// Address of this program in the network.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The address with this last byte.
    pub(crate) fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.subnet, last)
    }

    /// The network in CIDR notation.
    pub(crate) fn cidr(&self) -> String {
        format!("{}/24", self.address(0))
    }

    /// Connects a namespace to the bridge and gives it an address.
    pub(crate) fn connect(&self, namespace: &Namespace, address: Ipv4Addr) -> anyhow::Result<VethLink> {
        let port = format!("to{}", address.octets()[3]);
        let host_pid = namespace.pid().to_string();
        self.run_in_bridge(&["ip", "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &host_pid])?;
        self.attach_port(&port)?;
        for command in [
            vec!["ip", "link", "set", "lo", "up"],
            vec!["ip", "address", "add", &format!("{address}/24"), "dev", "eth0"],
            vec!["ip", "link", "set", "eth0", "up"],
        ] {
            run_in_network(namespace.pid(), &command)?;
        }
        let ends = [(self.bridge.pid(), port), (namespace.pid(), "eth0".to_owned())];
        Ok(VethLink { ends, lossy: AtomicBool::new(false) })
    }

    fn attach_port(&self, port: &str) -> anyhow::Result<()> {
        self.run_in_bridge(&["ip", "link", "set", port, "master", "br0"])?;
        self.run_in_bridge(&["ip", "link", "set", port, "up"])
    }

    fn run_in_bridge(&self, command: &[&str]) -> anyhow::Result<()> {
        run_in_network(self.bridge.pid(), command)
    }
}

/// The veth pair between a host and the bridge.
#[derive(Debug)]
pub(crate) struct VethLink {
    /// Bridge end and host end: a process in the namespace, and the device name.
    ends: [(u32, String); 2],
    lossy: AtomicBool,
}

impl VethLink {
    /// Drops this percentage of packets, in each direction. The rules are on ingress,
    /// so that neither end notices: a drop on a host's egress would fail its `send`
    /// with "operation not permitted".
    pub(crate) fn set_packet_loss(&self, percent: u8) -> anyhow::Result<()> {
        self.clear_packet_loss()?;
        self.lossy.store(true, Ordering::Relaxed);
        for (pid, device) in &self.ends {
            // Split segmented sends (UDP_SEGMENT), so that a whole frame is not dropped at once.
            run_in_network(*pid, &["ip", "link", "set", device, "gso_max_segs", "1"])?;
            let chain = format!("add chain netdev loss in {{ type filter hook ingress device {device} priority 0; }}");
            // nft refuses a comparison that is always true.
            let random = if percent < 100 { format!("numgen random mod 100 < {percent}") } else { String::new() };
            let rule = format!("add rule netdev loss in {random} drop");
            run_in_network(*pid, &["nft", &format!("add table netdev loss; {chain}; {rule}")])?;
        }
        Ok(())
    }

    /// Ends the packet loss.
    pub(crate) fn clear_packet_loss(&self) -> anyhow::Result<()> {
        if !self.lossy.load(Ordering::Relaxed) {
            return Ok(());
        }
        for (pid, device) in &self.ends {
            run_in_network(*pid, &["nft", "add table netdev loss; delete table netdev loss"])?;
            run_in_network(*pid, &["ip", "link", "set", device, "gso_max_segs", GSO_MAX_SEGS])?;
        }
        self.lossy.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// Runs a command in the network of a process and waits for it.
///
/// # Errors
/// If the command fails; includes its standard error.
pub(crate) fn run_in_network(pid: u32, command: &[&str]) -> anyhow::Result<()> {
    let pid = pid.to_string();
    run("nsenter", &[&["--target", &pid, "--net", "--"], command].concat())
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    output(program, arguments).map(drop)
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("could not run {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), stderr.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The kernel's default (`GSO_MAX_SEGS` of linux/netdevice.h).
const GSO_MAX_SEGS: &str = "65535";
