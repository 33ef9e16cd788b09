//! The options of `sockd run`: the settings that are worth a word on the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::adapter::shlex;
use crate::app::{Address, text};

use super::{Start, duration, inherited};

/// The command line that was meant where the server's command stands without `--` before it: `run gunicorn --workers 3`.
/// `words` are the arguments behind `run`, and `error` is what clap says of them. `None`: it says something else.
pub fn with_dashes(words: &[OsString], error: &clap::Error) -> Option<String> {
    let unexpected = error.get(ContextKind::InvalidArg).filter(|_| error.kind() == ErrorKind::UnknownArgument)?;
    let ContextValue::String(word) = unexpected else { return None };
    (!word.starts_with('-') && !words.iter().any(|other| other == "--")).then_some(())?;
    let at = words.iter().position(|other| other.to_str() == Some(word))?;
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let before = words[..at].iter().map(|word| format!(" {}", shlex::join(&[word]))).collect::<String>();
    Some(format!("sockd run{before} -- {}", shlex::join(&words[at..])))
}

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
    /// How long a replaced worker may finish what it has begun [default: as --stop-timeout]
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
    /// Tell programs the state here, over HTTP (/metrics, /ready): HOST:PORT, PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", value_parser = address())]
    pub status_listen: Option<Address>,
    /// The server's command line
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// An address whose path is bytes.
fn address() -> impl TypedValueParser<Value = Address> {
    OsStringValueParser::new().try_map(|argument| text::from_os(&argument).parse::<Address>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn an_error_says_where_the_dashes_of_a_command_belong() {
        let meant = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            with_dashes(&words, &Line::try_parse_from(&words).expect_err(line))
        };
        for (line, right) in [
            ("gunicorn --workers 3 a:b", Some("sockd run -- gunicorn --workers 3 a:b")),
            ("--workers 3 venv/bin/gunicorn a:f()", Some("sockd run --workers 3 -- venv/bin/gunicorn 'a:f()'")),
            ("--wrokers 3 -- gunicorn", None),
            ("--wrokers 3 gunicorn", None),
            ("--start-timeout 5s gunicorn -w 2", Some("sockd run --start-timeout 5s -- gunicorn -w 2")),
        ] {
            assert_eq!(meant(line).as_deref(), right, "{line}");
        }
    }
}
