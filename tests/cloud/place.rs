//! The network: a switch and hosts behind it, all of them namespaces of this machine, and one cable to this program.
//!
//! ```text
//!   this program --- veth hwPID ---[ switch: bridge ]--- host 10.213.K.10, .11, .12, .21 ...
//!   (10.213.K.1)
//! ```
//!
//! Each namespace lives as long as one process that sleeps in it and is killed with this program, whatever ends it; with
//! the namespaces go all cables, so nothing is ever left behind. Knows nothing of nodes.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use headwater_tests::process::Process;

/// A process that keeps namespaces alive. Dropped = it and they are gone.
#[derive(Debug)]
pub(crate) struct Keeper {
    _process: Process,
    pid: u32,
}

impl Keeper {
    /// A network of its own.
    pub(crate) fn network() -> anyhow::Result<Self> {
        let process = keep(&["--net"])?;
        let pid = process.pid();
        Ok(Self { _process: process, pid })
    }

    /// A network, and processes that all end with it.
    pub(crate) fn network_and_processes() -> anyhow::Result<Self> {
        let process = keep(&["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"])?;
        let outer = process.pid();
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
        let pid = children.split_whitespace().next().context("unshare without a child")?.parse()?;
        Ok(Self { _process: process, pid })
    }

    /// As others name its namespaces.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

fn keep(what: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare"]).args(what);
    let process = Process::start(command.args(["--", "sh", "-c", "echo up; exec sleep infinity"]))?;
    process.line("up").context("no network namespace can be made here")?;
    Ok(process)
}

/// The switch. Dropped = gone, with all cables.
#[derive(Debug)]
pub(crate) struct Place {
    switch: Keeper,
    /// The third byte of all addresses.
    net: u8,
}

impl Place {
    /// Makes the switch and the cable to this program.
    ///
    /// # Errors
    /// If the machine does not let us; root may.
    pub(crate) fn new() -> anyhow::Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root: start it with sudo");
        run("ip", &["link", "set", "lo", "up"])?;
        let taken = output("ip", &["-4", "-o", "address"])?;
        let begin = std::process::id() % 250;
        let net = (0..250)
            .map(|n| u8::try_from((begin + n) % 250).unwrap_or_default())
            .find(|net| !taken.contains(&format!(" 10.213.{net}.")))
            .context("all networks of the test cloud are taken")?;
        let place = Self { switch: Keeper::network()?, net };
        let pid = place.switch.pid().to_string();
        place.inside(&["ip", "link", "add", "switch", "type", "bridge"])?;
        place.inside(&["ip", "link", "set", "switch", "up"])?;
        let cable = format!("hw{}", std::process::id());
        run("ip", &["link", "add", &cable, "type", "veth", "peer", "name", "outside", "netns", &pid])?;
        run("ip", &["address", "add", &format!("{}/24", place.gateway()), "dev", &cable])?;
        run("ip", &["link", "set", &cable, "up"])?;
        place.plug("outside")?;
        Ok(place)
    }

    /// The address of this program.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The address with this last byte.
    pub(crate) fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.net, last)
    }

    /// All addresses.
    pub(crate) fn range(&self) -> String {
        format!("{}/24", self.address(0))
    }

    /// A cable from the switch to the namespace of `keeper`, with this address at its end.
    pub(crate) fn connect(&self, keeper: &Keeper, address: Ipv4Addr) -> anyhow::Result<Cable> {
        let port = format!("to{}", address.octets()[3]);
        let theirs = keeper.pid().to_string();
        self.inside(&["ip", "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &theirs])?;
        self.plug(&port)?;
        for command in [
            vec!["ip", "link", "set", "lo", "up"],
            vec!["ip", "address", "add", &format!("{address}/24"), "dev", "eth0"],
            vec!["ip", "link", "set", "eth0", "up"],
        ] {
            enter(keeper.pid(), &command)?;
        }
        let ends = [(self.switch.pid(), port), (keeper.pid(), "eth0".to_owned())];
        Ok(Cable { ends, loses: AtomicBool::new(false) })
    }

    fn plug(&self, port: &str) -> anyhow::Result<()> {
        self.inside(&["ip", "link", "set", port, "master", "switch"])?;
        self.inside(&["ip", "link", "set", port, "up"])
    }

    fn inside(&self, command: &[&str]) -> anyhow::Result<()> {
        enter(self.switch.pid(), command)
    }
}

/// What connects a host to the switch.
#[derive(Debug)]
pub(crate) struct Cable {
    /// The switch's and the host's: a process in the namespace, and the device.
    ends: [(u32, String); 2],
    loses: AtomicBool,
}

impl Cable {
    /// From now on so many of a hundred packets are lost on it, in each direction. Neither end is told: a rule on the way out of
    /// a host would say "not permitted" to whoever sends.
    pub(crate) fn lose(&self, percent: u8) -> anyhow::Result<()> {
        self.heal()?;
        self.loses.store(true, Ordering::Relaxed);
        for (pid, device) in &self.ends {
            // What is sent as one piece, a whole picture for example (UDP_SEGMENT), must not be lost as one.
            enter(*pid, &["ip", "link", "set", device, "gso_max_segs", "1"])?;
            let chain = format!("add chain netdev cable in {{ type filter hook ingress device {device} priority 0; }}");
            let rule = format!("add rule netdev cable in numgen random mod 100 < {percent} drop");
            enter(*pid, &["nft", &format!("add table netdev cable; {chain}; {rule}")])?;
        }
        Ok(())
    }

    /// It loses nothing any more.
    pub(crate) fn heal(&self) -> anyhow::Result<()> {
        if !self.loses.load(Ordering::Relaxed) {
            return Ok(());
        }
        for (pid, device) in &self.ends {
            enter(*pid, &["nft", "add table netdev cable; delete table netdev cable"])?;
            enter(*pid, &["ip", "link", "set", device, "gso_max_segs", GSO_MAX_SEGS])?;
        }
        self.loses.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// Runs a command in the network of a process, and waits for its end.
///
/// # Errors
/// If it fails; with what it said.
pub(crate) fn enter(pid: u32, command: &[&str]) -> anyhow::Result<()> {
    let pid = pid.to_string();
    run("nsenter", &[&["--target", &pid, "--net", "--"], command].concat())
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    output(program, arguments).map(drop)
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("could not run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As the kernel makes devices (`GSO_MAX_SEGS` of linux/netdevice.h).
const GSO_MAX_SEGS: &str = "65535";
