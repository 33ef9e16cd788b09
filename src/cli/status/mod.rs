//! `sockd status`: every instance, its unit, its sockets and its workers.

use std::process::ExitCode;

use clap::Args;

use crate::exit;

/// The options of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sockd status\n  sockd status gunicorn --json")]
pub struct Arguments {
    /// The units to show, with or without ".service"; all of sockd's when none is named
    #[arg(value_name = "UNIT")]
    pub units: Vec<String>,
    /// Print an array of objects for programs
    #[arg(long)]
    pub json: bool,
}

/// Runs the subcommand.
pub fn run(_: &Arguments) -> ExitCode {
    eprintln!("sockd: error: `status` is not built yet");
    ExitCode::from(exit::FAILURE)
}
