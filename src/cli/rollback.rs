//! `sockd rollback`: reloads a unit back to the release that served before, and waits for the outcome.
//!
//! Owns: its options. What it does is a reload's ([`super::reload`]); which release it is, the supervisor decides.

use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::complete;
use super::reload::{self, Command};
use super::whose::Whose;
use crate::systemd::UnitName;

/// The options of `rollback`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sockd rollback gunicorn\n\n\
                  It is a reload in the directory of the release that served before, as sockd history shows it:\n\
                  the old workers serve until the new ones are proven, and it is refused like any reload. A path\n\
                  that begins with the configured directory (in the command, PATH, environment-files) begins with\n\
                  that release's instead; the configuration file and what stands in environment files are those of\n\
                  today.\n\n\
                  Where visitors try new code first (canary-workers), they try this, too; sockd reload --promote\n\
                  ends that at once.\n\n\
                  It changes no file and no link: the next reload, and the next start of the unit, run the\n\
                  configured directory again. Lead that back, too, or deploy a release that is fixed.\n\n\
                  Where all releases have the same directory, or the one of before is gone or holds another\n\
                  commit, nothing is changed, and it says what it needs.\n\n\
                  Exit codes, as of sockd reload:\n  0  the release of before serves\n  1  it does not, and why is on stderr")]
pub struct Arguments {
    /// The unit, with or without ".service"; within a unit, that one
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    unit: Option<UnitName>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// Return as soon as the rollback has begun
    #[arg(long)]
    no_wait: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let unit = arguments.unit.as_ref().map(|unit| arguments.whose.unit(unit));
    reload::run_command(Command::Rollback, unit.as_ref(), !arguments.no_wait)
}
