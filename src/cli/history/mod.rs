//! `sockd history`: every reload and start of an instance: when, who asked, which release, how it ended.
//!
//! Owns: who is asked, and where the history of a stopped unit is read.
//! Never: changes anything.

pub mod render;
pub mod report;

use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::instance::{state_directories, who_may};
use super::status::Collector;
use super::status::report::Entry;
use super::whose::Whose;
use super::{complete, next_step, output};
use crate::control::{self, HistoryEntry};
use crate::systemd::{Manager, UnitName};
use crate::{exit, history};
use report::InstanceHistory;

/// The options of `history`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sockd history\n  sockd history gunicorn\n  sockd history gunicorn --json | jq '.[].entries[-1].release'\n\n\
                  The newest comes first, with --json last, each with the time of its end; the last 100 are kept.\n\
                  A reload is refused, or taken back: then workers of it had been ready for visitors already. One\n\
                  is cut short where the unit stops before it has ended; its release has not served by it. Who\n\
                  asked is the user of the process that asked, as the kernel tells it; \"sammy as root\" is who had\n\
                  logged in (/proc/self/loginuid), not what an environment says.\n\n\
                  The history stays when the unit stops where the unit has a StateDirectory=, as what sockd adopt\n\
                  writes and sockd@.service have: it is the file sockd-history in the first of its directories.\n\
                  Without it the history lasts as long as RuntimeDirectory=: until the unit stops or restarts.\n\
                  What was adopted before gets it by another sockd adopt --write.\n\n\
                  In a unit file of your own:\n  [Service]\n  StateDirectory=sockd-%N\n  StateDirectoryMode=0700\n\n\
                  Exit codes:\n  0  all that was asked for is shown\n  1  a history is not known, and why is on stderr\n  4  no such unit"
)]
pub struct Arguments {
    /// The units to show, with or without ".service"; all of sockd's when none is named
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    units: Vec<UnitName>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// Print an array of objects for programs
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot set up: {error}")),
    };
    let units: Vec<UnitName> = arguments.units.iter().map(|unit| arguments.whose.unit(unit)).collect();
    let (histories, missing) = runtime.block_on(gather(&units, arguments.whose));
    let text = match arguments.json {
        true => output::json(&histories),
        false => render::render(&histories, output::width(), output::colour_wanted()),
    };
    if let Err(error) = output::print(&text) {
        return failed(&format!("cannot write to stdout: {error}"));
    }
    let errors = histories.iter().filter_map(|history| Some((&history.name, history.error.as_ref()?)));
    errors.clone().for_each(|(name, why)| output::complain(&format!("{name}: {why}")));
    ExitCode::from(match errors.count() {
        _ if missing => exit::NO_SUCH_UNIT,
        0 => exit::SUCCESS,
        _ => exit::FAILURE,
    })
}

/// All that was asked for, and whether one of the units does not exist.
async fn gather(units: &[UnitName], whose: Whose) -> (Vec<InstanceHistory>, bool) {
    let report = Collector::new(units, whose.managers()).report().await;
    report.systemd_error.iter().for_each(|why| output::complain(&format!("cannot ask systemd: {why}")));
    let mut histories = Vec::new();
    let mut missing = false;
    for entry in &report.entries {
        let mut found = InstanceHistory {
            unit: entry.unit.clone(),
            user: entry.user,
            pid: entry.pid,
            name: entry.name(),
            ..InstanceHistory::default()
        };
        missing |= entry.exit_code() == exit::NO_SUCH_UNIT;
        match ask(entry).await {
            Ok((entries, problem)) => (found.entries, found.error) = (entries, problem),
            Err(why) => found.error = Some(why),
        }
        histories.push(found);
    }
    (histories, missing)
}

/// The entries of an instance, and what is wrong with them.
async fn ask(entry: &Entry) -> Result<(Vec<HistoryEntry>, Option<String>), String> {
    if let Some(pid) = entry.pid {
        let cannot = |error: &dyn std::fmt::Display| format!("cannot ask it: {error}");
        let instance = control::of_process(pid).await.map_err(|error| cannot(&error))?;
        let entries = control::ask_history(&instance).await.map_err(|error| match error {
            error if error.is_denial() => format!("{} ask it", who_may(instance.uid)),
            error if error.is_unknown_request() => cannot(&control::OLDER),
            error => cannot(&error),
        })?;
        return Ok((entries.into_iter().map(history::bounded).collect(), None));
    }
    let manager = if entry.user { Manager::User } else { Manager::System };
    match (&entry.unit, &entry.systemd) {
        (Some(unit), Some(state)) if state.load_state == "not-found" => {
            Err(format!("there is no unit {unit}; {}", next_step::of_running("history")))
        }
        (Some(unit), Some(state)) if state.main_pid == 0 => kept(manager, unit),
        _ => {
            Err(entry.sockd_error.clone().or(entry.systemd_error.clone()).unwrap_or_else(|| "it is not running".into()))
        }
    }
}

/// What a stopped unit has left in its state directory.
fn kept(manager: Manager, unit: &str) -> Result<(Vec<HistoryEntry>, Option<String>), String> {
    let directories = state_directories(manager, unit)?;
    if directories.is_empty() {
        return Err(format!(
            "it is stopped, and without StateDirectory= its history ends with it; `{} edit {unit}` can add \
             StateDirectory=sockd-%N to [Service]",
            manager.systemctl()
        ));
    }
    let found = directories.iter().find(|directory| directory.join(history::FILE_NAME).exists());
    let Some(directory) = found.or(directories.first()) else { return Err("there is no state directory".to_owned()) };
    let kept = history::read(directory);
    Ok((kept.entries, kept.problem))
}

fn failed(message: &str) -> ExitCode {
    output::complain(message);
    ExitCode::from(exit::FAILURE)
}
