//! The namespaces in which everything runs: a network without a link to the outside, mounts and
//! processes that end with this program.
//!
//! Must not know nodes or attacks.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Address of the node under attack.
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// Replaces this process by a copy of itself in new namespaces, with the argument `mark` added.
/// Returns the reason if that is impossible. Without root, a user namespace is created, too.
pub(crate) fn reexecute(mark: &str) -> anyhow::Result<anyhow::Error> {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]);
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).arg(mark);
    Ok(anyhow::Error::from(command.exec()).context("could not run unshare"))
}

/// Makes all addresses of 10.99.0.0/16 addresses of this machine: attackers can have any of them.
pub(crate) fn configure_network() -> anyhow::Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    // With an address of its own, connections to it come from it, and not from 127.0.0.1.
    run("ip", &["address", "add", &format!("{NODE_ADDRESS}/32"), "dev", "lo"])?;
    run("ip", &["route", "add", "local", "10.99.0.0/16", "dev", "lo"])
}

/// A file system in memory. Unmounted on drop.
#[derive(Debug)]
pub(crate) struct MemoryDisk(PathBuf);

impl MemoryDisk {
    /// Mounts a file system of this size on an empty folder.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub(crate) fn mount(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        let path = folder.to_str().context("a folder whose name is not UTF-8")?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes},mode=700"), "tmpfs", path])?;
        Ok(Self(folder.to_owned()))
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for MemoryDisk {
    fn drop(&mut self) {
        // Lazy: a process of the node may still be ending. Otherwise it ends with the namespace.
        let _ = run("umount", &["--lazy", &self.0.to_string_lossy()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("could not run {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), stderr.trim());
    Ok(())
}
