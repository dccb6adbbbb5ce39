//! The command line of `headwaterd`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use headwater_api::StreamName;

use super::app_arguments::AppCommand;
use super::list_arguments::ListArguments;
use super::token_arguments::TokenCommand;

/// Runs a Headwater node.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the node until SIGTERM or Ctrl-C, which drains it; a second signal stops it at once
    Run {
        /// Configuration file; docs/headwater.example.toml lists all keys [default:
        /// /etc/headwater/headwater.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Path of the engine [default: headwater-engine next to this program, or on PATH]
        #[arg(long, value_name = "PATH")]
        engine: Option<PathBuf>,
        /// How commands are typed where the node was started, for hints in the log: `...` stands
        /// for their arguments
        #[arg(long, value_name = "TEMPLATE", hide = true)]
        command_template: Option<String>,
    },
    /// Checks for common faults and prints a remedy for each; exits with 69 if a check failed
    Doctor {
        /// Configuration file, as for `run`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Also checks whether this stream is being published
        #[arg(long, value_name = "APP/ID", value_parser = StreamName::parse)]
        stream: Option<StreamName>,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Lists the nodes of the cluster
    Nodes(ListArguments),
    /// Lists the live streams of the cluster
    Streams(ListArguments),
    /// Shows and changes who may publish to an app and watch it
    App {
        #[command(subcommand)]
        command: AppCommand,
    },
    /// Makes, lists and revokes tokens for publishers and viewers
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Prints whether there is an administrator; --reset sets and prints a new password
    Password {
        /// Configuration file, as for `run`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Sets a new password, which ends all sessions; in a cluster, takes it from the cluster's
        /// secret
        #[arg(long)]
        reset: bool,
    },
    /// Prints what this machine is and what it would run as, and changes nothing
    Plan {
        /// Configuration file, as for `run`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
}
