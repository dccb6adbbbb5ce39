//! Runs a program in a network namespace of its own, where it has an address that is not loopback.
//! For what treats loopback in a special way.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;

use crate::process::Process;
use crate::tools;

/// A command that runs `program` in a namespace that has loopback and this address.
pub fn command(program: &Path, address: Ipv4Addr) -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let script = "ip link set lo up && ip address add \"$0/32\" dev lo && exec \"$@\"";
    command.args(["--net", "--", "sh", "-c", script, &address.to_string()]).arg(program);
    command
}

/// Runs the ignored test of this name, of the calling program, in a namespace that has loopback and
/// this address. Prints what it prints. Skips it, with a printed line, where no namespace can be
/// created.
///
/// # Errors
/// If the test fails, or has not ended after `timeout`.
#[expect(clippy::print_stdout, reason = "what the inner test printed")]
pub fn run_ignored_test(name: &str, address: Ipv4Addr, timeout: Duration) -> anyhow::Result<()> {
    if !command(Path::new("true"), address).output().is_ok_and(|output| output.status.success()) {
        tools::skip_missing("a network namespace cannot be created here");
        return Ok(());
    }
    let mut test = command(&std::env::current_exe()?, address);
    let test = Process::start(test.args(["--exact", name, "--ignored", "--nocapture"]))?;
    let exit = test.wait_exit(timeout)?;
    let lines = test.lines();
    println!("{}", lines.join("\n"));
    ensure!(exit.success() && lines.iter().any(|line| line.starts_with("test result: ok. 1 passed")), "{name}: {exit}");
    Ok(())
}
