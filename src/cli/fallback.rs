//! `sockd fallback`: answers 503 on inherited sockets. Started by sockd itself, never by a person.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::fallback;

/// The options of `fallback`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How many sockets LISTEN_FDS hands over
    #[arg(long, value_name = "N")]
    listeners: usize,

    /// A page of the operator's own
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    ExitCode::from(fallback::run(arguments.listeners, arguments.page.as_deref()))
}
