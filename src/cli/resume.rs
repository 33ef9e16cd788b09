//! `sockd resume`: ends a pause, and waits until a worker serves.
//!
//! Owns: its options, and how a pause ends for `sockd pause` as well.

use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::complete;
use super::instance::{Failure, answered, find, in_event_loop, no_answer, say};
use super::whose::Whose;
use crate::control::{self, Instance, Request};
use crate::systemd::UnitName;

/// The options of `resume`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sockd resume gunicorn\n\nExit codes:\n  0  the pause is over, and visitors are served\n  1  nothing was paused, or no worker can start: why is on stderr"
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
    let resumed = in_event_loop(async {
        let instance = find("resume", unit.as_ref()).await.map_err(no_answer)?;
        resume(&instance).await
    });
    say(resumed)
}

/// Ends the pause of an instance; what came of it, in one line.
pub(super) async fn resume(instance: &Instance) -> Result<String, Failure> {
    answered(control::follow(instance, Request::Resume, |_| ()).await, "resume", instance)
}
