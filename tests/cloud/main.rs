//! `headwater-cloud`: a cluster on one machine, to try out by hand or to check end to end.
//!
//! ```text
//!   browser, OBS, ffmpeg --> load balancers --> origins 1, 2   edges 1, 2, 3   registry
//!                                               (each in its own network namespace)
//!                                               stand-ins for AWS: metadata, Auto Scaling, moto
//! ```
//!
//! Started by `./headwater cluster`. Nothing leaves this machine, and nothing
//! remains, however it ends.

mod balancer;
mod checks;
mod cluster;
mod console;
mod host;
mod missing_tool;
mod network;
mod node;
mod registry;
mod viewers;

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use checks::CheckLevel;
use cluster::{Cluster, ClusterSpec};

/// A cluster of real nodes in network namespaces: a registry, 2 origins, 3 edges and a balancer.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Run every check, print a line for each, and exit.
    #[arg(long)]
    check: bool,
    /// Run only the quick checks.
    #[arg(long, requires = "check")]
    short: bool,
    /// Extend the outage and the player check to ten minutes.
    #[arg(long, requires = "check", conflicts_with = "short")]
    long: bool,
    /// Run only checks whose name contains this text.
    #[arg(long, requires = "check")]
    only: Vec<String>,
    /// One database, or three registry nodes with a replica set. Default: nodes if
    /// HEADWATER_TEST_MONGOD names a mongod.
    #[arg(long, value_enum)]
    registry: Option<registry::RegistryKind>,
    /// Number of LL-HLS players in the round-robin check.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    players: u32,
    /// Listen address of the load balancer. 0.0.0.0 makes it reachable from other machines.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Port for pages and players; the next free one if it is in use.
    #[arg(long, default_value_t = 5080)]
    http_port: u16,
    /// Port for logging in; the next free one if it is in use.
    #[arg(long, default_value_t = 5443)]
    https_port: u16,
    /// Port for publishers; the next free one if it is in use.
    #[arg(long, default_value_t = 1935)]
    rtmp_port: u16,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        // EX_TEMPFAIL of sysexits.h: a tool is missing and nothing was checked.
        Err(e) if e.is::<missing_tool::MissingTool>() => ExitCode::from(75),
        Err(e) => {
            print_line(&format!("headwater-cloud: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let spec = ClusterSpec {
        registry: arguments.registry.unwrap_or_else(registry::RegistryKind::default_for_host),
        origins: 2,
        edges: 3,
        listen: arguments.listen,
        http_port: arguments.http_port,
        https_port: arguments.https_port,
        rtmp_port: arguments.rtmp_port,
    };
    // Child processes share the terminal and receive SIGINT, too. They handle it themselves, and
    // all of them end with this process.
    if arguments.check {
        exit_on_signal(&runtime);
        let level = match (arguments.short, arguments.long) {
            (true, _) => CheckLevel::Short,
            (_, true) => CheckLevel::Long,
            _ => CheckLevel::Full,
        };
        let options = checks::Options { level, only: arguments.only.clone(), players: arguments.players };
        let all_passed = checks::run(&spec, &options, runtime.handle())?;
        return Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let shutdown_rx = shutdown_signal(&runtime)?;
    let cluster = Cluster::build(&spec, runtime.handle(), |what| print_line(&format!("==> {what}")))?;
    console::run(cluster, &shutdown_rx)?;
    Ok(ExitCode::SUCCESS)
}

/// Becomes true on SIGINT, SIGTERM or SIGHUP.
fn shutdown_signal(runtime: &tokio::runtime::Runtime) -> anyhow::Result<tokio::sync::watch::Receiver<bool>> {
    let (shutdown_tx, shutdown_rx) = tokio::sync::watch::channel(false);
    let _entered = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    runtime.spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        shutdown_tx.send_replace(true);
    });
    Ok(shutdown_rx)
}

/// Exits on SIGINT or SIGTERM. No cleanup is needed: every process is tied to this one, and every
/// namespace to a process.
fn exit_on_signal(runtime: &tokio::runtime::Runtime) {
    runtime.spawn(async {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
}

#[expect(clippy::print_stdout, reason = "the output is the purpose of this program")]
pub(crate) fn print_line(line: &str) {
    println!("{line}");
}
