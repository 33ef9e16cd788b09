//! `sockd ready`: has balancers send visitors again.

use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::complete;
use super::instance::{answered, find, in_event_loop, no_answer, say};
use super::whose::Whose;
use crate::control::{self, Request};
use crate::systemd::UnitName;

/// The options of `ready`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sockd ready gunicorn\n\nExit codes:\n  0  balancers hear that it takes visitors\n  1  it was not drained, or cannot be asked: why is on stderr"
)]
pub struct Arguments {
    /// The unit, with or without ".service"; within a unit, that one
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    unit: Option<UnitName>,
    #[command(flatten)]
    pub(super) whose: Whose,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let unit = arguments.unit.as_ref().map(|unit| arguments.whose.unit(unit));
    say(in_event_loop(async {
        let instance = find("ready", unit.as_ref()).await.map_err(no_answer)?;
        let answer = control::follow(&instance, Request::Drain { is_drained: false }, |_| ()).await;
        answered(answer, "end the drain", &instance)
    }))
}
