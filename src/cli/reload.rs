//! `sockd reload`: reloads a unit and waits for the outcome.

use std::process::ExitCode;

use clap::Args;

use super::output;
use crate::exit;

/// The options of `reload`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sockd reload gunicorn\n\nIn a unit file:\n  ExecReload=/usr/bin/sockd reload --wait"
)]
pub struct Arguments {}

/// Runs the subcommand.
pub fn run(_: &Arguments) -> ExitCode {
    output::complain("`reload` is not built yet");
    ExitCode::from(exit::FAILURE)
}
