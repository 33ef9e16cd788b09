//! `sockd maintenance`: has visitors get a page and no worker serve, until it is ended.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::ArgValueCandidates;

use super::instance::{answered, find, in_event_loop, no_answer, say};
use super::whose::Whose;
use super::{complete, output};
use crate::config::duration;
use crate::control::{self, Request};
use crate::exit;
use crate::maintenance::Maintenance;
use crate::systemd::UnitName;

/// The options of `maintenance`.
#[derive(Debug, Args)]
#[command(
    allow_missing_positional = true,
    after_help = "Examples:\n  sockd maintenance gunicorn on --message \"Back at eight.\" --retry-after 1h\n  \
                  sockd maintenance gunicorn off\n\n\
                  Workers finish the requests that they have and leave; everybody who comes gets 503 with the page, or\n\
                  with the message on it, as HTML, JSON or text. It stays on over a restart of the unit and of the\n\
                  machine where the unit has StateDirectory=, as adopt writes it. Given again, it changes the words.\n\n\
                  A sockd reload meanwhile proves the new code by a canary, and it serves when maintenance is over.\n\n\
                  Exit codes:\n  0  done; off: visitors are served\n  1  not done, or no worker can start: why is on stderr"
)]
pub struct Arguments {
    /// The unit, with or without ".service"; within a unit, that one
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    unit: Option<UnitName>,
    /// Whether visitors get the page
    #[arg(value_name = "on|off")]
    state: State,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// What visitors read, in a line, in place of the usual words
    #[arg(long, value_name = "TEXT", value_parser = message)]
    message: Option<String>,
    /// When visitors, and their programs, may come again [default: 5min]
    #[arg(long, value_name = "TIME", value_parser = retry_after)]
    retry_after: Option<u32>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    /// Visitors get the page
    On,
    /// Workers serve again
    Off,
}

fn message(text: &str) -> Result<String, String> {
    Maintenance { message: Some(text.to_owned()), ..Maintenance::default() }.checked().map(|_| text.to_owned())
}

fn retry_after(text: &str) -> Result<u32, String> {
    let seconds = duration::parse_positive(text)?.max(Duration::from_secs(1)).as_secs();
    let retry_after = u32::try_from(seconds).unwrap_or(u32::MAX);
    Maintenance { retry_after, ..Maintenance::default() }.checked().map(|checked| checked.retry_after)
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let on = arguments.state == State::On;
    if !on && (arguments.message.is_some() || arguments.retry_after.is_some()) {
        output::complain("--message and --retry-after are for sockd maintenance on");
        return ExitCode::from(exit::USAGE);
    }
    let unit = arguments.unit.as_ref().map(|unit| arguments.whose.unit(unit));
    let done = in_event_loop(async {
        let instance = find("maintenance", unit.as_ref()).await.map_err(no_answer)?;
        let (message, retry_after_s) = (arguments.message.clone(), arguments.retry_after);
        let request = Request::Maintenance { on, message, retry_after_s };
        let asked = control::follow(&instance, request, |step| output::say(&format!("{step}\n")));
        answered(asked.await, "switch maintenance", &instance)
    });
    say(done)
}
