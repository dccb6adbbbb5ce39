//! Cost of a process: CPU time and resident memory, read from the kernel.
//!
//! This file must not know which server the process is.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// One or more processes that make up a server.
#[derive(Debug, Clone)]
pub(crate) struct Processes(Vec<i32>);

impl Processes {
    /// The process `pid` and its current children.
    pub(crate) fn tree(pid: i32) -> Self {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        Self(std::iter::once(pid).chain(children.split_whitespace().filter_map(|s| s.parse().ok())).collect())
    }

    /// Kills them with SIGKILL.
    pub(crate) fn kill(&self) {
        for pid in &self.0 {
            let _ = nix::sys::signal::kill(Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// User and system time of all threads that ever ran in these processes.
    ///
    /// # Errors
    /// If a process has exited.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.0.iter().try_fold(Duration::ZERO, |sum, pid| {
            let used = clock_getcpuclockid(Pid::from_raw(*pid))
                .and_then(clock_gettime)
                .with_context(|| format!("process {pid} has exited"))?;
            Ok(sum + Duration::from(used))
        })
    }

    /// Resident memory, in KiB.
    ///
    /// # Errors
    /// If a process has exited.
    pub(crate) fn rss_kb(&self) -> Result<u64> {
        self.0.iter().try_fold(0, |sum, pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
                .with_context(|| format!("process {pid} has exited"))?;
            let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
            let kb: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
            Ok(sum + kb)
        })
    }
}

/// Raises the limit of open files to the maximum, for this process and the servers that it starts.
pub(crate) fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
