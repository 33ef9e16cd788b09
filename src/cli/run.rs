//! `sockd run`: the supervisor in the foreground.

use std::process::ExitCode;

use clap::Args;

use crate::config::Options;
use crate::daemon;
use crate::journal::Format;

const AFTER_HELP: &str = "\
Example:
  sockd run -- venv/bin/gunicorn --workers 3 myproject.wsgi:application
  sockd run --config /etc/sockd/web.toml

Signals:
  SIGHUP                    Reload: prove the new code, then replace the workers one after the other
  SIGUSR1                   Have log files opened afresh, by servers that can
  SIGTTIN, SIGTTOU          One worker more, or one fewer, until the next reload
  SIGTERM, SIGINT, SIGQUIT  Stop: workers finish their requests; as the third signal, or at a
                            terminal the second, SIGINT or SIGQUIT hurries them
  any other                 Nothing, but for a line in the log that says what to use";

/// The options of `run`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) options: Options,
    /// How the log is written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: Format,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    daemon::run(arguments.options.clone(), None, arguments.log_format)
}
