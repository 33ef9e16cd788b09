//! `sockd fallback`: answers 503 on inherited sockets. Started by sockd itself, never by a person.

use std::process::ExitCode;

use clap::Args;

use super::output;
use crate::exit;

/// The options of `fallback`.
#[derive(Debug, Args)]
pub struct Arguments {}

/// Runs the subcommand.
pub fn run(_: &Arguments) -> ExitCode {
    output::complain("`fallback` is not built yet");
    ExitCode::from(exit::FAILURE)
}
