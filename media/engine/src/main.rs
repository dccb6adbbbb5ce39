//! `headwater-engine --config FILE`: reads the configuration, runs the engine, and stops it on a
//! signal.
//!
//! The first SIGTERM or SIGINT starts the drain, the second stops the engine immediately. Exit
//! codes are in `headwater_api::error::exit`. If the engine stops with an error, it also writes the
//! reason to standard output as one line for the parent process.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use headwater_api::Config;
use headwater_api::config::RegistryKind;
use headwater_api::error::{Chain, exit};
use headwater_engine::engine::{Engine, StartError};
use headwater_engine::node::daemon_reports::{DaemonSocket, run_start_reports};
use headwater_engine::node::health::NodeHealthReceiver;
use headwater_registry::RegistryError;
use tokio::signal::unix::{SignalKind, signal};

/// Headwater's media engine.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file; docs/headwater.example.toml lists every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Read health reports of the node from standard input, and send reports of the engine there
    /// if it is a socket; set by headwaterd
    #[arg(long)]
    node_health: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    headwater_program::logging::install();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, sentence)) => {
            log::error!(err = sentence.as_str(); "engine stopped");
            let mut out = std::io::stdout();
            if !out.is_terminal() {
                // Ignore a closed pipe: the reason is also in the log.
                let _ = writeln!(out, "{sentence}");
            }
            ExitCode::from(code)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), (u8, String)> {
    let file = arguments.config.display();
    let text = std::fs::read_to_string(&arguments.config)
        .map_err(|e| (exit::CONFIG, format!("could not read {file}: {e}")))?;
    let config = Config::parse(&text).map_err(|e| (exit::CONFIG, format!("{file}, {e}")))?;
    let is_shared = config.registry.kind == RegistryKind::MongoDb;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| (exit::UNAVAILABLE, format!("could not start threads: {e}")))?;
    let result = runtime.block_on(async {
        let unavailable = |e: std::io::Error| (exit::UNAVAILABLE, format!("could not watch signals: {e}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
        let daemon_socket = arguments.node_health.then(DaemonSocket::from_stdin).flatten();
        let start_reports = daemon_socket.clone().map(|socket| tokio::spawn(run_start_reports(socket)));
        let built = Engine::build(config).await;
        if let Some(start_reports) = start_reports {
            start_reports.abort();
            // No report of the start follows one of the running engine.
            let _ = start_reports.await;
        }
        let mut engine = built.map_err(|e| {
            let code = match e {
                StartError::Registry(RegistryError::Locked { .. } | RegistryError::Unreachable { .. }) => exit::UNAVAILABLE,
                StartError::Listen(_) | StartError::Webrtc(_) => exit::UNAVAILABLE,
                StartError::DataDir { .. } | StartError::Descriptors(_) | StartError::Tls(_) | StartError::Secret(_) | StartError::NodeSecret(_) | StartError::Registry(_) => exit::CONFIG,
            };
            (code, Chain(&e).to_string())
        })?;
        if arguments.node_health {
            let node_health = NodeHealthReceiver::connected(engine.wall_clock());
            engine.set_node_health(node_health.clone());
            if let Some(socket) = daemon_socket {
                engine.set_daemon_socket(socket);
            }
            // A detached thread, because a blocking read of standard input cannot be cancelled.
            std::thread::spawn(move || node_health.read_reports(std::io::stdin()));
        }
        let drain = engine.drain_handle();
        let mut engine_task = tokio::spawn(engine.run());
        for attempt in 0.. {
            tokio::select! {
                result = &mut engine_task => return result.map_err(|e| (exit::SOFTWARE, format!("a task of the engine failed: {e}"))),
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if attempt > 0 {
                log::warn!("second signal, stopping immediately");
                return Ok(());
            }
            log::info!("draining");
            drain.cancel();
        }
        Ok(())
    });
    if is_shared {
        // Tasks that still use a shared registry end with the process. Dropping the runtime would
        // end them one by one, and the MongoDB driver panics when a task uses a connection pool
        // that has already been dropped (mongodb/mongo-rust-driver#615).
        std::mem::forget(runtime);
    }
    result
}
