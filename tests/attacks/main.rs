//! `headwater-attacks`: attacks on a whole node while independent viewers watch it.
//!
//! ```text
//!   ffmpeg ----> node (headwaterd and its engine) ----> canary: RTMP, LL-HLS and WHEP viewers
//!                 ^
//!   attack -------+  from addresses of its own
//! ```
//!
//! Each attack must leave the node and its viewers alone: the engine is not restarted, its memory
//! does not grow, and no viewer of the canary waits longer than a limit for its next frame. All
//! traffic stays inside namespaces that end with this program, and every attack is bounded in
//! volume and duration.

mod attacker;
mod canary;
mod cases;
mod node;
mod sandbox;
mod target;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use headwater_tests::{pion, publish};
use tokio::signal::unix::{SignalKind, signal};

use cases::{CASES, Case, Victim};
use target::{Setup, Target};

/// Attacks a node on this machine, and prints one line for each attack with the longest gap that a
/// viewer had.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Attack for longer and with more connections and requests, on an idle machine: a gap may take
    /// one second.
    #[arg(long)]
    long: bool,
    /// Longest gap that a viewer may have, in milliseconds. Default: 3,000; with --long 1,000.
    #[arg(long)]
    max_gap_ms: Option<u64>,
    /// Run only attacks whose name contains this text.
    #[arg(long)]
    only: Vec<String>,
    /// Already inside its own namespaces.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(e) => {
            print_line(&format!("headwater-attacks: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // EX_TEMPFAIL of sysexits.h: a tool is missing, which is printed, and nothing was checked.
    if pion::viewer_path()?.is_none() || publish::ffmpeg_command().is_none() {
        return Ok(ExitCode::from(75));
    }
    if !arguments.inside {
        return Err(sandbox::reexecute("--inside")?);
    }
    sandbox::configure_network()?;
    attacker::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    exit_on_signal(&runtime);
    let max_gap = arguments.max_gap_ms.unwrap_or(if arguments.long { 1_000 } else { 3_000 });
    let setup = Setup::new(runtime.handle().clone(), arguments.long, Duration::from_millis(max_gap))?;
    let is_selected = |case: &&Case| arguments.only.is_empty() || arguments.only.iter().any(|o| case.name.contains(o));
    let selected: Vec<_> = CASES.iter().filter(is_selected).collect();
    anyhow::ensure!(!selected.is_empty(), "no attack has such a name");

    let started = Instant::now();
    let (mut all_passed, mut shared) = (true, None);
    for case in selected {
        let case_started = Instant::now();
        let result = run_case(case, &setup, &mut shared);
        print_result(case.name, case_started.elapsed(), &result);
        // The next attack gets a node that this one has not touched.
        if result.is_err() {
            (all_passed, shared) = (false, None);
        }
    }
    let verdict = if all_passed { "the node withstood all attacks" } else { "some attacks had an effect" };
    print_line(&format!("==> {verdict}, in {} s", started.elapsed().as_secs()));
    Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs an attack on the node that attacks share, starting it if there is none, or on nodes of its
/// own.
fn run_case(case: &Case, setup: &Setup, shared: &mut Option<Target>) -> anyhow::Result<String> {
    match case.victim {
        Victim::Own(attack) => attack(setup),
        Victim::Shared(attack) => {
            let target = match shared {
                Some(target) => target,
                None => shared.insert(Target::start(setup, setup.options())?),
            };
            attack(setup, target)
        }
    }
}

fn print_result(name: &str, took: Duration, result: &anyhow::Result<String>) {
    let took = took.as_secs_f64();
    match result {
        Ok(figure) => print_line(&format!("ok    {name:<34} {took:>5.1} s  {figure}")),
        Err(e) => print_line(&format!("FAIL  {name:<34} {took:>5.1} s  {e:#}")),
    }
}

/// Exits on SIGINT or SIGTERM: this program is the first process of its PID namespace, which would
/// otherwise ignore them, and all others end with it.
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
