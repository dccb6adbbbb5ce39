//! The node under attack: its addresses, its figures, and whether it is still the same engine.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context as _, ensure};
use headwater_api::Config;
use headwater_api::control::Endpoints;
use headwater_api::rest::StreamStatus;
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{self, Options};
use headwater_tests::{http, wait};

use crate::sandbox::NODE_ADDRESS;

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Node {
    daemon: Daemon,
    endpoints: Endpoints,
}

/// Figures of a node at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    lines: usize,
    resident_kib: u64,
}

impl Node {
    /// Starts a node in this folder, and waits until its engine serves.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn start_in(options: Options, folder: &Path) -> anyhow::Result<Self> {
        Self::of(Daemon::start_in(options, folder)?)
    }

    /// The node of a daemon; waits until its engine serves.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn of(daemon: Daemon) -> anyhow::Result<Self> {
        let endpoints = daemon.wait_endpoints(None).with_context(|| log_end(&daemon))?;
        Ok(Self { daemon, endpoints })
    }

    /// Like [`Node::of`], for a node that listens on the ports of this configuration: it need not
    /// write them to a file.
    ///
    /// # Errors
    /// As [`Node::of`].
    pub(crate) fn with_ports_of(daemon: Daemon, config: &Config) -> anyhow::Result<Self> {
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, config.health.listen.port()));
        let pid = wait::until("an engine that serves", || {
            http::get(health, "/livez").ok().filter(|response| response.status == 200)?;
            engine_pid(&daemon)
        })
        .with_context(|| log_end(&daemon))?;
        let endpoints = Endpoints {
            pid,
            http: config.http.listen.address(),
            https: None,
            self_signed_fingerprint: None,
            rtmp: config.rtmp.listen.address(),
            rtmps: None,
            relay: Some(config.relay.listen),
            webrtc: Vec::new(),
            health,
        };
        Ok(Self { daemon, endpoints })
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) fn wait_ready(&self) -> anyhow::Result<()> {
        wait::until("the node to be ready", || self.is_ready().then_some(()))
            .with_context(|| format!("{:?}; {}", self.readiness(), log_end(&self.daemon)))
    }

    /// True if `/readyz` answers 200 to a program of the same machine.
    pub(crate) fn is_ready(&self) -> bool {
        http::get(self.health(), "/readyz").is_ok_and(|response| response.status == 200)
    }

    /// The checks of `/readyz` that fail, as JSON.
    pub(crate) fn readiness(&self) -> anyhow::Result<String> {
        Ok(http::get(self.health(), "/readyz")?.text())
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.endpoints.http.expect("plain HTTP is off")
    }

    /// Address of HTTPS.
    ///
    /// # Errors
    /// If it is off.
    pub(crate) fn https(&self) -> anyhow::Result<SocketAddr> {
        self.endpoints.https.context("HTTPS is off")
    }

    pub(crate) fn rtmp(&self) -> SocketAddr {
        self.endpoints.rtmp.expect("plain RTMP is off")
    }

    /// Address of the relay.
    ///
    /// # Errors
    /// If it has none.
    pub(crate) fn relay(&self) -> anyhow::Result<SocketAddr> {
        self.endpoints.relay.context("the node has no relay")
    }

    /// Address of the health listener for programs of the same machine.
    pub(crate) fn health(&self) -> SocketAddr {
        self.endpoints.health
    }

    /// Address of the health listener for other machines.
    pub(crate) fn remote_health(&self) -> SocketAddr {
        SocketAddrV4::new(NODE_ADDRESS, self.endpoints.health.port()).into()
    }

    /// Process id of the engine at the start.
    pub(crate) fn engine_pid(&self) -> u32 {
        self.endpoints.pid
    }

    /// The data folder.
    pub(crate) fn data_dir(&self) -> &Path {
        self.daemon.data_dir()
    }

    /// Status of a stream, or `None` if it is not live.
    pub(crate) fn status(&self, name: &str) -> anyhow::Result<Option<StreamStatus>> {
        engine::status(self.http(), name)
    }

    /// Number of log lines so far, of the daemon and the engine.
    pub(crate) fn line_count(&self) -> usize {
        self.daemon.process().line_count()
    }

    /// Log lines from index `start` on.
    pub(crate) fn lines_from(&self, start: usize) -> Vec<String> {
        self.daemon.process().lines_from(start)
    }

    /// Sum of the values of a metric over all labels; 0 if it is absent.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = http::get(self.health(), "/metrics")?.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }

    /// Resident memory of the engine, in KiB.
    fn resident_kib(&self) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.endpoints.pid)).context("the engine")?;
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// The figures now.
    pub(crate) fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Ok(Snapshot { lines: self.line_count(), resident_kib: self.resident_kib()? })
    }

    /// Checks that the same engine still runs, that it has neither panicked nor been restarted, and
    /// that it has not grown. Returns how much it has grown, in MiB.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub(crate) fn ensure_intact_since(&self, before: Snapshot) -> anyhow::Result<u64> {
        ensure!(self.daemon.process().is_running(), "headwaterd has ended: {}", log_end(&self.daemon));
        for line in self.lines_from(before.lines) {
            let is_fault = FAULTS.iter().any(|fault| line.contains(fault));
            ensure!(!is_fault, "{line}");
        }
        let pid = engine_pid(&self.daemon);
        ensure!(pid == Some(self.endpoints.pid), "the engine was replaced: process {} by {pid:?}", self.endpoints.pid);
        let grown_mib = self.resident_kib()?.saturating_sub(before.resident_kib) >> 10;
        ensure!(grown_mib <= MAX_GROWTH_MIB, "the engine's memory grew by {grown_mib} MiB");
        Ok(grown_mib)
    }
}

/// Process id of the engine: the only child of the daemon, which it starts from its main thread.
fn engine_pid(daemon: &Daemon) -> Option<u32> {
    let pid = daemon.process().pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn log_end(daemon: &Daemon) -> String {
    let lines = daemon.process().lines();
    format!("the end of its log: {}", lines[lines.len().saturating_sub(12)..].join("\n      "))
}

/// In log lines: something that no attack may cause.
const FAULTS: [&str; 3] = ["panicked at", "killing the engine", "engine exited unexpectedly"];
/// Growth of the resident memory during one attack: the allocator keeps some of what connections
/// and requests have used.
const MAX_GROWTH_MIB: u64 = 128;
