//! `headwaterd`: finds out what this node is, starts the engine and looks after it.
//!
//! RULE: may know api, program and registry; never the engine's code. Exit codes: `headwater_api::error::exit`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod administrator;
mod asg;
mod aws;
mod backoff;
mod boot;
mod capacity;
mod child;
mod data_dir;
mod decide;
mod doctor;
mod engine;
mod facts;
mod heartbeat;
mod http;
mod imds;
mod join;
mod lifecycle;
mod listing;
mod mongod;
mod notice;
mod plan;
mod reach;
mod register;
mod registry_node;
mod report;
mod scaling;
mod settings;
mod shared_registry;
mod standing;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use boot::BootError;
use clap::{Parser, Subcommand};
use headwater_api::StreamName;
use headwater_api::error::{Chain, exit};
use headwater_program::logging;
use settings::Settings;

/// Runs a Headwater node.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the node until SIGTERM or Ctrl-C, which drains it; a second one ends it at once
    Run {
        /// Settings; docs/headwater.example.toml lists them all [default: /etc/headwater/headwater.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The engine's program [default: headwater-engine beside this program, or on PATH]
        #[arg(long, value_name = "PATH")]
        engine: Option<PathBuf>,
    },
    /// Checks everything that goes wrong, and says what to do about it; ends with 69 if a check failed
    Doctor {
        /// Settings, as for `run`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Also looks whether somebody publishes this stream
        #[arg(long, value_name = "APP/ID", value_parser = StreamName::parse)]
        stream: Option<StreamName>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Lists the nodes of the cluster
    Nodes(Listing),
    /// Lists the live streams of the cluster
    Streams(Listing),
    /// Says whether there is an administrator; with --reset makes a new password and prints it
    Password {
        /// Settings, as for `run`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Makes a new password, which ends all sessions; in a cluster, takes the one from its secret
        #[arg(long)]
        reset: bool,
    },
    /// Prints what this machine is and what it would run as, and changes nothing
    Plan {
        /// Settings, as for `run`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Listing {
    /// Settings, as for `run`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// As JSON, with everything that is known
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    logging::install();
    match dispatch(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, sentence)) => {
            log::error!(err = sentence.as_str(); "headwaterd stopped");
            ExitCode::from(code)
        }
    }
}

fn dispatch(command: Command) -> Result<(), (u8, String)> {
    let stopped = |e: BootError| (e.exit_code(), Chain(&e).to_string());
    // One thread: there is little to do, and the kernel ends the engine with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| (exit::UNAVAILABLE, format!("could not start: {e}")))?;
    match command {
        Command::Run { config, engine } => runtime.block_on(boot::run(config, engine)).map_err(stopped),
        Command::Password { config, reset } => {
            let plan = runtime.block_on(planned(config.as_deref()))?;
            let outcome = runtime.block_on(async {
                if reset { administrator::reset(&plan).await } else { administrator::look(&plan).await }
            });
            print(&outcome.map_err(|e| stopped(e.into()))?.text());
            Ok(())
        }
        Command::Doctor { config, stream, json } => {
            let settings = Settings::read(config.as_deref()).map_err(|e| stopped(e.into()))?;
            let findings = runtime.block_on(doctor::examine(&settings, stream.as_ref()));
            print(&if json { to_json(&findings)? } else { doctor::text(&findings) });
            match doctor::is_well(&findings) {
                true => Ok(()),
                false => Err((exit::UNAVAILABLE, "a check failed".to_owned())),
            }
        }
        Command::Nodes(Listing { config, json }) => {
            let plan = runtime.block_on(planned(config.as_deref()))?;
            let nodes = runtime.block_on(listing::nodes(&plan)).map_err(|e| (exit::UNAVAILABLE, e))?;
            print(&if json { to_json(&nodes)? } else { listing::nodes_table(&nodes) });
            Ok(())
        }
        Command::Streams(Listing { config, json }) => {
            let plan = runtime.block_on(planned(config.as_deref()))?;
            let streams = runtime.block_on(listing::streams(&plan)).map_err(|e| (exit::UNAVAILABLE, e))?;
            print(&if json { to_json(&streams)? } else { listing::streams_table(&streams) });
            Ok(())
        }
        Command::Plan { config, json } => {
            let settings = Settings::read(config.as_deref()).map_err(|e| stopped(e.into()))?;
            let (facts, _) = runtime.block_on(decide::fetch_facts(&settings)).map_err(stopped)?;
            let plan = plan::plan(&facts, &settings).map_err(|e| stopped(e.into()))?;
            let registry = runtime.block_on(decide::find_registry(&facts, &plan));
            let text = if json {
                report::json(&facts, &plan, registry.as_ref())
                    .map_err(|e| (exit::SOFTWARE, format!("could not print the plan: {e}")))?
            } else {
                report::text(&facts, &plan, registry.as_ref())
            };
            print(&text);
            Ok(())
        }
    }
}

/// The plan of this machine, for commands that run beside a node.
async fn planned(file: Option<&Path>) -> Result<plan::Plan, (u8, String)> {
    let stopped = |e: BootError| (e.exit_code(), Chain(&e).to_string());
    let settings = Settings::read(file).map_err(|e| stopped(e.into()))?;
    let (facts, _) = decide::fetch_facts(&settings).await.map_err(stopped)?;
    plan::plan(&facts, &settings).map_err(|e| stopped(e.into()))
}

fn to_json(value: &impl serde::Serialize) -> Result<String, (u8, String)> {
    serde_json::to_string_pretty(value).map_err(|e| (exit::SOFTWARE, format!("could not print it: {e}")))
}

/// To standard output. Whoever reads it may have had enough (`| head`).
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}
