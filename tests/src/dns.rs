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
use crate::temp::Folder;
use crate::tools;
use crate::wait::PATIENCE;

/// A DNS server. Killed on drop.
#[derive(Debug)]
pub struct Dns {
    address: Ipv4Addr,
    folder: Folder,
    state: Mutex<State>,
}

/// What runs at the address.
#[derive(Debug)]
enum State {
    Absent,
    /// Receives queries and does not answer.
    Silent {
        _socket: UdpSocket,
    },
    Answers {
        server: Process,
    },
}

impl Dns {
    /// Reserves an address; no server runs there yet. Returns `None` if dnsmasq is not installed;
    /// the skip is printed.
    ///
    /// # Errors
    /// If there is no free address.
    pub fn new() -> anyhow::Result<Option<Self>> {
        if tools::find("dnsmasq").is_none() {
            return Ok(None);
        }
        let begin = std::process::id().wrapping_mul(7);
        // Each candidate is tried once: another test of this process may have found it free and not
        // yet started its server.
        let address = (0..1_000)
            .map(|_| begin.wrapping_add(LOOKED_AT.fetch_add(1, Ordering::Relaxed)).to_be_bytes())
            .filter(|[.., low]| (1..=254).contains(low))
            .map(|[.., high, low]| Ipv4Addr::new(127, 53, high, low))
            .find(|address| UdpSocket::bind((*address, PORT)).is_ok())
            .context("no loopback address with a free port 53 (that takes root)")?;
        let folder = Folder::new()?;
        folder.write(FILE, format!("nameserver {address}\n"))?;
        Ok(Some(Self { address, folder, state: Mutex::new(State::Absent) }))
    }

    /// Serves only these records, in the syntax of dnsmasq (`srv-host=…`, `txt-record=…`,
    /// `host-record=…`).
    ///
    /// # Errors
    /// If dnsmasq does not start.
    pub fn answer(&self, entries: &[String]) -> anyhow::Result<()> {
        let mut state = self.end()?;
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
        command.args(["--address=/#/"]).args(entries.iter().map(|entry| format!("--{entry}")));
        let server = Process::start_tied(&command)?;
        server.line("started, version")?;
        *state = State::Answers { server };
        Ok(())
    }

    /// Stops answering queries.
    ///
    /// # Errors
    /// If the address is in use.
    pub fn fall_silent(&self) -> anyhow::Result<()> {
        let mut state = self.end()?;
        *state = State::Silent { _socket: UdpSocket::bind((self.address, PORT))? };
        Ok(())
    }

    /// Start of a command line that runs a program with this DNS server. The program keeps the
    /// process id.
    pub fn inside(&self) -> Vec<String> {
        let file = self.folder.path().join(FILE).display().to_string();
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, &file].map(str::to_owned).into()
    }

    /// Stops the current server and waits until the address is free.
    fn end(&self) -> anyhow::Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Answers { server } = &*state {
            server.signal(Signal::SIGKILL);
            server.exit(PATIENCE)?;
        }
        *state = State::Absent;
        Ok(state)
    }
}

static LOOKED_AT: AtomicU32 = AtomicU32::new(0);
const PORT: u16 = 53;
const FILE: &str = "resolv.conf";
