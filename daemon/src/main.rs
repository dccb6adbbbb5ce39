//! `headwaterd`: determines what this node is, starts the engine and supervises it.
//!
//! RULE: depends on api, program and registry; never on the engine's code. Exit codes:
//! `headwater_api::error::exit`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod aws;
mod boot;
mod cli;
mod cluster;
mod doctor;
mod http_client;
mod operator_command;
mod process;
mod registry_node;

use std::process::ExitCode;

use clap::Parser as _;
use cli::arguments::Arguments;
use headwater_api::error::exit;
use headwater_program::{descriptors, logging};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    logging::install();
    // The engine and mongod inherit it.
    descriptors::raise_limit();
    match cli::dispatch::dispatch(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, sentence)) => {
            log::error!(err = sentence.as_str(); "headwaterd stopped");
            ExitCode::from(code)
        }
    }
}
