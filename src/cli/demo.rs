//! `sockd demo`: the main job without systemd, Python or set-up.

use std::process::ExitCode;

use clap::Args;

use super::output;
use crate::exit;

/// The options of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sockd demo\n  curl http://127.0.0.1:8000/")]
pub struct Arguments {}

/// Runs the subcommand.
pub fn run(_: &Arguments) -> ExitCode {
    output::complain("`demo` is not built yet");
    ExitCode::from(exit::FAILURE)
}
