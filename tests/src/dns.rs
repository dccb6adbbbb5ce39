//! A private DNS server for a test, Debian's dnsmasq, and programs that use only this server.
//!
//! The server has its own loopback address, on port 53. A program that uses it runs in a mount
//! namespace whose `/etc/resolv.conf` names it, so that the program's own resolver reads that file
//! as on any machine.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use nix::sys::signal::Signal;

use crate::process::Process;
use crate::temp::TempDir;
use crate::tools;
use crate::wait::WAIT_TIMEOUT;

/// A DNS server. Killed on drop.
#[derive(Debug)]
pub struct DnsServer {
    address: Ipv4Addr,
    folder: TempDir,
    state: Mutex<State>,
}

/// What runs at the address.
#[derive(Debug)]
enum State {
    Stopped,
    /// Receives queries and does not answer.
    Unresponsive {
        _socket: UdpSocket,
    },
    Running {
        server: Process,
    },
}

impl DnsServer {
    /// Reserves an address; no server runs there yet. Returns `None` if dnsmasq is not installed;
    /// the skip is printed.
    ///
    /// # Errors
    /// If there is no free address.
    pub fn new() -> anyhow::Result<Option<Self>> {
        if tools::find_program("dnsmasq").is_none() {
            return Ok(None);
        }
        let start = std::process::id().wrapping_mul(7);
        // Each candidate is tried once: another test of this process may have found it free and not
        // yet started its server.
        let address = (0..1_000)
            .map(|_| start.wrapping_add(NEXT_CANDIDATE.fetch_add(1, Ordering::Relaxed)).to_be_bytes())
            .filter(|[.., low]| (1..=254).contains(low))
            .map(|[.., high, low]| Ipv4Addr::new(127, 53, high, low))
            .find(|address| UdpSocket::bind((*address, DNS_PORT)).is_ok())
            .context("no loopback address with a free port 53 (that takes root)")?;
        let folder = TempDir::new()?;
        folder.write(RESOLV_CONF, format!("nameserver {address}\n"))?;
        Ok(Some(Self { address, folder, state: Mutex::new(State::Stopped) }))
    }

    /// Serves only these records, in the syntax of dnsmasq (`srv-host=…`, `txt-record=…`,
    /// `host-record=…`).
    ///
    /// # Errors
    /// If dnsmasq does not start.
    pub fn serve_records(&self, records: &[String]) -> anyhow::Result<()> {
        let mut state = self.stop()?;
        let mut command = Command::new("dnsmasq");
        command.args([
            "--conf-file=/dev/null",
            "--keep-in-foreground",
            "--log-facility=-",
            "--pid-file=",
            "--user=root",
        ]);
        command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", &format!("--listen-address={}", self.address)]);
        // NXDOMAIN for every other name.
        command.args(["--address=/#/"]).args(records.iter().map(|record| format!("--{record}")));
        let server = Process::start_tied_to_thread(&command)?;
        server.wait_line("started, version")?;
        *state = State::Running { server };
        Ok(())
    }

    /// Stops answering queries.
    ///
    /// # Errors
    /// If the address is in use.
    pub fn stop_answering(&self) -> anyhow::Result<()> {
        let mut state = self.stop()?;
        *state = State::Unresponsive { _socket: UdpSocket::bind((self.address, DNS_PORT))? };
        Ok(())
    }

    /// Start of a command line that runs a program with this DNS server. The program keeps the
    /// process id.
    pub fn command_prefix(&self) -> Vec<String> {
        let file = self.folder.path().join(RESOLV_CONF).display().to_string();
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, &file].map(str::to_owned).into()
    }

    /// Stops the current server and waits until the address is free.
    fn stop(&self) -> anyhow::Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running { server } = &*state {
            server.signal(Signal::SIGKILL);
            server.wait_exit(WAIT_TIMEOUT)?;
        }
        *state = State::Stopped;
        Ok(state)
    }
}

static NEXT_CANDIDATE: AtomicU32 = AtomicU32::new(0);
const DNS_PORT: u16 = 53;
const RESOLV_CONF: &str = "resolv.conf";
