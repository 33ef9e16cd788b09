//! The options of `sockd run`: the settings that are worth a word on the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::app::{Address, text};

use super::{Start, duration, inherited};

/// Options that override the configuration file.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// Read this configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Run the command in this directory (an absolute path)
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
    /// Set a variable in the workers' environment; repeatable
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = inherited::assignment)]
    pub environment: Vec<(String, String)>,
    /// Listen here when systemd hands over no socket: unix:PATH, HOST:PORT or PORT; repeatable
    #[arg(long, value_name = "ADDRESS", value_parser = address())]
    pub listen: Vec<Address>,
    /// Number of workers, 1 to 4096 [default: what the server's own options say, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub workers: Option<u32>,
    /// When to start the first worker [default: on-connection under a socket unit, else at-once]
    #[arg(long, value_name = "WHEN", value_enum)]
    pub start: Option<Start>,
    /// How long a worker may take to be ready [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse_positive)]
    pub start_timeout: Option<Duration>,
    /// How long a worker may take to stop [default: what the server's own options say, else 30s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse_positive)]
    pub stop_timeout: Option<Duration>,
    /// How long a replaced worker may finish its requests [default: as --stop-timeout]
    #[arg(long, value_name = "TIME", value_parser = duration::parse_positive)]
    pub drain_timeout: Option<Duration>,
    /// Replace a worker without a heartbeat for so long [default: the server's own, else never]
    #[arg(long, value_name = "TIME", value_parser = duration::parse_positive)]
    pub watchdog: Option<Duration>,
    /// When a worker that can tell nothing of itself counts as ready [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub ready_after: Option<Duration>,
    /// Load the application once, before forking workers (Python) [default: the server's own]
    #[arg(long)]
    pub preload: bool,
    /// Reload without proving the new code on a canary first
    #[arg(long)]
    pub no_canary: bool,
    /// The server's command line
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// An address whose path is bytes.
fn address() -> impl TypedValueParser<Value = Address> {
    OsStringValueParser::new().try_map(|argument| text::from_os(&argument).parse::<Address>())
}
