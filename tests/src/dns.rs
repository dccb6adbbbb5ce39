//! A DNS server of a test's own, which is Debian's dnsmasq, and programs that ask it and no other.
//!
//! It has a loopback address of its own, with DNS's own port. A program that is to ask it runs in a mount namespace where
//! `/etc/resolv.conf` names it; so what reads that file is the program's own resolver, as on any machine.

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

/// A DNS server. Dropped = gone.
#[derive(Debug)]
pub struct Dns {
    address: Ipv4Addr,
    folder: Folder,
    state: Mutex<State>,
}

/// What answers at the address.
#[derive(Debug)]
enum State {
    Absent,
    /// Questions arrive, and that is all.
    Silent {
        _socket: UdpSocket,
    },
    Answers {
        server: Process,
    },
}

impl Dns {
    /// An address for one, at which nobody answers yet. `None` without dnsmasq (said aloud).
    ///
    /// # Errors
    /// If there is no address.
    pub fn new() -> anyhow::Result<Option<Self>> {
        if tools::find("dnsmasq").is_none() {
            return Ok(None);
        }
        let begin = std::process::id().wrapping_mul(7);
        // Each candidate once: another test of this process may be between its look and its server.
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

    /// It answers with these entries from now on, in dnsmasq's words (`srv-host=…`, `txt-record=…`, `host-record=…`), and knows no
    /// other.
    ///
    /// # Errors
    /// If dnsmasq does not take them.
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
        // What it does not know there is not.
        command.args(["--address=/#/"]).args(entries.iter().map(|entry| format!("--{entry}")));
        let server = Process::start_tied(&command)?;
        server.line("started, version")?;
        *state = State::Answers { server };
        Ok(())
    }

    /// Questions get no answer from now on.
    ///
    /// # Errors
    /// If the address is taken.
    pub fn fall_silent(&self) -> anyhow::Result<()> {
        let mut state = self.end()?;
        *state = State::Silent { _socket: UdpSocket::bind((self.address, PORT))? };
        Ok(())
    }

    /// The start of a command line whose program asks this server, and keeps its process id.
    pub fn inside(&self) -> Vec<String> {
        let file = self.folder.path().join(FILE).display().to_string();
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, &file].map(str::to_owned).into()
    }

    /// The address has one server at a time: waits until whoever has it is gone.
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
