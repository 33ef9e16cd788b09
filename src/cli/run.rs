//! `sockd run`: the supervisor in the foreground.

use std::process::ExitCode;

use clap::Args;

use crate::config::Options;
use crate::daemon;

/// The options of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sockd run -- venv/bin/gunicorn --workers 3 myproject.wsgi:application\n  sockd run --config /etc/sockd/web.toml"
)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    daemon::run(arguments.options.clone(), None)
}
