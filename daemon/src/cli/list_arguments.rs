//! The arguments of every command that prints a list.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct ListArguments {
    /// Configuration file, as for `run`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Prints JSON, with all fields
    #[arg(long)]
    pub(crate) json: bool,
}
