//! `headwater-cloud`: a whole cluster on one machine, for a person to play with, or checked from end to end.
//!
//! ```text
//!   browser, OBS, ffmpeg --> balancer --> origins 1, 2   edges 1, 2, 3   registry      each a network namespace
//!                                                                       (one database, or registry nodes 1, 2, 3)
//!                                             '-- metadata, Auto Scaling, moto: stand-ins for AWS --'
//! ```
//!
//! `./headwater cluster` starts it. Everything stays on this machine, and nothing is left of it, however it ends.

mod balancer;
mod checks;
mod host;
mod node;
mod place;
mod play;
mod registry;
mod scene;
mod viewers;

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use checks::Extent;
use scene::{Scene, Wish};

/// A cluster of real nodes in network namespaces: a registry, 2 origins, 3 edges and a balancer.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Runs every check, prints a line for each, and ends.
    #[arg(long)]
    check: bool,
    /// Only the checks that are quick.
    #[arg(long, requires = "check")]
    short: bool,
    /// Ten minutes for what is otherwise shorter.
    #[arg(long, requires = "check", conflicts_with = "short")]
    long: bool,
    /// Only checks whose name holds this.
    #[arg(long, requires = "check")]
    only: Vec<String>,
    /// One database, or three registry nodes with a replica set. Default: nodes where HEADWATER_TEST_MONGOD names a mongod.
    #[arg(long, value_enum)]
    registry: Option<registry::Kind>,
    /// LL-HLS players in the crowd.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    players: u32,
    /// Address of the balancer. 0.0.0.0 lets other machines in.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Port for pages and players, or the next free one.
    #[arg(long, default_value_t = 5080)]
    http_port: u16,
    /// Port for publishers, or the next free one.
    #[arg(long, default_value_t = 1935)]
    rtmp_port: u16,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        // EX_TEMPFAIL of sysexits.h: nothing has been checked.
        Err(e) if e.is::<scene::Missing>() => ExitCode::from(75),
        Err(e) => {
            say(&format!("headwater-cloud: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let wish = Wish {
        registry: arguments.registry.unwrap_or_else(registry::Kind::here),
        origins: 2,
        edges: 3,
        listen: arguments.listen,
        http_port: arguments.http_port,
        rtmp_port: arguments.rtmp_port,
    };
    // Children share the terminal and hear Ctrl-C too; they have their own ways to end, and all end with this process.
    if arguments.check {
        end_on_signal(&runtime);
        let extent = match (arguments.short, arguments.long) {
            (true, _) => Extent::Short,
            (_, true) => Extent::Long,
            _ => Extent::Full,
        };
        let options = checks::Options { extent, only: arguments.only.clone(), players: arguments.players };
        let good = checks::run(&wish, &options, runtime.handle())?;
        return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let ending = ended(&runtime)?;
    let scene = Scene::build(&wish, runtime.handle(), |what| say(&format!("==> {what}")))?;
    play::run(scene, &ending)?;
    Ok(ExitCode::SUCCESS)
}

/// Set once the user wants it to end.
fn ended(runtime: &tokio::runtime::Runtime) -> anyhow::Result<tokio::sync::watch::Receiver<bool>> {
    let (sender, receiver) = tokio::sync::watch::channel(false);
    let _entered = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    runtime.spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        sender.send_replace(true);
    });
    Ok(receiver)
}

/// A check that is broken off needs no order: every process is tied to this one, every namespace to a process.
fn end_on_signal(runtime: &tokio::runtime::Runtime) {
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

#[expect(clippy::print_stdout, reason = "what it prints is what it is for")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
