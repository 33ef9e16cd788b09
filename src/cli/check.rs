//! `sockd check`.

use std::process::ExitCode;

/// What `sockd check` is told.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {}

/// Runs `sockd check`.
pub fn run(_arguments: &Arguments) -> ExitCode {
    ExitCode::SUCCESS
}
