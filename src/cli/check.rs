//! `sockd check`: validates a configuration or a unit.

use std::process::ExitCode;

use clap::Args;

use super::output;
use crate::exit;

/// The options of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sockd check /etc/sockd/web.toml\n  sockd check gunicorn.service")]
pub struct Arguments {}

/// Runs the subcommand.
pub fn run(_: &Arguments) -> ExitCode {
    output::complain("`check` is not built yet");
    ExitCode::from(exit::FAILURE)
}
