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

    /// What visitors read in place of the usual words
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    ExitCode::from(fallback::run(arguments.listeners, arguments.page.as_deref(), arguments.message.clone()))
}
