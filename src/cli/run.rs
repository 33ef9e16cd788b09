//! `sockd run`: the supervisor in the foreground.

use std::process::ExitCode;

use clap::Args;

use super::output;
use crate::exit;

/// The options of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sockd run -- venv/bin/gunicorn --workers 3 myproject.wsgi:application\n  sockd run --config /etc/sockd/web.toml"
)]
pub struct Arguments {}

/// Runs the subcommand.
pub fn run(_: &Arguments) -> ExitCode {
    output::complain("`run` is not built yet");
    ExitCode::from(exit::FAILURE)
}
