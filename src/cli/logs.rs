//! `sockd logs`: what the journal holds of a unit or of one worker; journalctl shows it.
//!
//! Owns: which entries belong together.
//! Never: reads or shows an entry itself: paging, colours and permissions are journalctl's.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Args;
use clap_complete::ArgValueCandidates;
use serde::Deserialize;

use super::whose::Whose;
use super::{complete, output};
use crate::exit;
use crate::journal::message_id;
use crate::systemd::show::{self, Properties};
use crate::systemd::{Manager, UnitName};

/// The options of `logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sockd logs gunicorn\n  sockd logs gunicorn --follow\n  sockd logs gunicorn --worker 3 -n 50\n\n\
                  `sockd status` shows the workers' numbers.\n\n\
                  Exit codes: those of journalctl, and\n  4  no such unit"
)]
pub struct Arguments {
    /// The unit, with or without ".service"
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    unit: UnitName,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// Show what this worker of the last run wrote, and what sockd says of it
    #[arg(long, value_name = "N")]
    worker: Option<u64>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Show the last lines alone
    #[arg(short = 'n', long, value_name = "LINES")]
    lines: Option<u32>,
}

/// Runs the subcommand. It ends as journalctl ends, or with [`exit::NO_SUCH_UNIT`].
pub fn run(arguments: &Arguments) -> ExitCode {
    let unit = &arguments.whose.unit(&arguments.unit);
    let mut command = match journalctl(unit, arguments.worker) {
        Ok(command) => command,
        Err((code, why)) => {
            output::complain(&why);
            return ExitCode::from(code);
        }
    };
    command.args(arguments.follow.then_some("--follow"));
    command.args(arguments.lines.map(|lines| format!("--lines={lines}")));
    let error = command.exec();
    output::complain(&format!("cannot run journalctl: {error}"));
    ExitCode::from(exit::FAILURE)
}

/// The command that shows what the journal holds of a unit, or of one of its workers.
///
/// # Errors
/// The exit code, and why there is nothing to be shown.
pub(super) fn journalctl(unit: &UnitName, worker: Option<u64>) -> Result<Command, (u8, String)> {
    let properties = show::properties(unit.manager(), unit.as_str(), "LoadState,UID").unwrap_or_default();
    let whole = of_unit(unit, uid(&properties));
    // A unit that is gone may have left its entries.
    if show::first(&properties, "LoadState") == "not-found" && !has_entries(&whole) {
        let why = format!("there is no unit {unit}, and the journal holds nothing of it");
        return Err((exit::NO_SUCH_UNIT, why));
    }
    let matches = match worker {
        None => whole,
        Some(worker) => {
            let started = started(unit, worker).map_err(|why| (exit::FAILURE, why))?;
            of_worker(unit, worker, &started)
        }
    };
    let mut command = Command::new("journalctl");
    command.args(matches);
    Ok(command)
}

/// Everything of a unit: what its processes wrote, and what systemd says of it.
///
/// The last lines of a process that is gone before the journal looks at it belong to no unit. sockd's own name theirs;
/// they are taken from the unit's user alone, because anybody could write such a field.
fn of_unit(unit: &UnitName, uid: Option<&str>) -> Vec<String> {
    let said = match unit.manager() {
        Manager::System => vec![format!("UNIT={unit}"), "_PID=1".to_owned()],
        Manager::User => vec![format!("USER_UNIT={unit}"), own_uid()],
    };
    let mut matches: Vec<String> = written(unit).into_iter().chain(["+".to_owned()]).chain(said).collect();
    if let Some(uid) = uid {
        matches.extend(["+".to_owned(), format!("SOCKD_UNIT={unit}"), format!("_UID={uid}")]);
    }
    matches
}

/// What the processes of a unit wrote. A user's unit may have a name that another user's has, too.
fn written(unit: &UnitName) -> Vec<String> {
    match unit.manager() {
        Manager::System => vec![format!("_SYSTEMD_UNIT={unit}")],
        Manager::User => vec![format!("_SYSTEMD_USER_UNIT={unit}"), own_uid()],
    }
}

fn own_uid() -> String {
    format!("_UID={}", rustix::process::getuid().as_raw())
}

/// What a worker wrote to its stderr, which sockd passes on by its number; what it wrote to its stdout, which is the
/// journal's by its process; and what sockd says of it.
fn of_worker(unit: &UnitName, worker: u64, started: &Started) -> Vec<String> {
    let unit = written(unit);
    // Numbers and process ids come again in another run.
    let run = started.run.iter().map(|run| format!("_SYSTEMD_INVOCATION_ID={run}"));
    let said = unit.iter().cloned().chain([format!("SOCKD_WORKER={worker}")]).chain(run.clone());
    let wrote = unit.iter().cloned().chain([format!("_PID={}", started.pid)]).chain(run);
    said.chain(["+".to_owned()]).chain(wrote).collect()
}

/// The journal's entry of a worker's start.
#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Started {
    #[serde(rename = "SOCKD_PID")]
    pid: String,
    #[serde(rename = "_SYSTEMD_INVOCATION_ID")]
    run: Option<String>,
}

/// Asks the journal for a worker's last start.
fn started(unit: &UnitName, worker: u64) -> Result<Started, String> {
    let id = format!("MESSAGE_ID={}", message_id::WORKER_STARTED);
    let number = format!("SOCKD_WORKER={worker}");
    let fields = "--output-fields=SOCKD_PID,_SYSTEMD_INVOCATION_ID";
    let of_unit = written(unit);
    let mut arguments = vec!["--quiet", "--output=json", "--lines=1", fields, &id, &number];
    arguments.extend(of_unit.iter().map(String::as_str));
    let (ok, text) = show::output("journalctl", &arguments)?;
    let line = text.lines().find(|line| line.starts_with('{'));
    match line.and_then(|line| serde_json::from_str(line).ok()) {
        Some(started) if ok => Ok(started),
        _ if !ok => Err(text.lines().next().unwrap_or("journalctl failed").to_owned()),
        _ => Err(format!(
            "the journal has no worker {worker} of {unit}, or does not show it to you: `sockd status` shows the workers, \
             and root and the group adm see everything"
        )),
    }
}

/// The user of the unit's last run, as a number; `None` when systemd does not know.
fn uid(properties: &Properties) -> Option<&str> {
    Some(show::first(properties, "UID")).filter(|uid| uid.parse::<u32>().is_ok_and(|uid| uid != u32::MAX))
}

/// Whether the journal shows us anything of these matches. A journal that cannot be asked is journalctl's to speak of.
fn has_entries(matches: &[String]) -> bool {
    let mut arguments = vec!["--quiet", "--output=cat", "--lines=1"];
    arguments.extend(matches.iter().map(String::as_str));
    show::output("journalctl", &arguments).is_ok_and(|(ok, text)| !ok || !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> UnitName {
        "a.service".parse().expect("a name")
    }

    #[test]
    fn a_unit_is_a_disjunction() {
        assert_eq!(of_unit(&unit(), None).join(" "), "_SYSTEMD_UNIT=a.service + UNIT=a.service _PID=1");
        assert_eq!(
            of_unit(&unit(), Some("33")).join(" "),
            "_SYSTEMD_UNIT=a.service + UNIT=a.service _PID=1 + SOCKD_UNIT=a.service _UID=33"
        );
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(
            of_unit(&unit().of(Manager::User), None).join(" "),
            format!("_SYSTEMD_USER_UNIT=a.service _UID={uid} + USER_UNIT=a.service _UID={uid}")
        );
    }

    #[test]
    fn a_worker_is_what_it_wrote_and_what_is_said_of_it() {
        let line = r#"{"SOCKD_PID":"4712","_SYSTEMD_INVOCATION_ID":"cafe","__CURSOR":"x"}"#;
        let started: Started = serde_json::from_str(line).expect("an entry");
        assert_eq!(
            of_worker(&unit(), 3, &started).join(" "),
            "_SYSTEMD_UNIT=a.service SOCKD_WORKER=3 _SYSTEMD_INVOCATION_ID=cafe + \
             _SYSTEMD_UNIT=a.service _PID=4712 _SYSTEMD_INVOCATION_ID=cafe"
        );
        let started: Started = serde_json::from_str(r#"{"SOCKD_PID":"1"}"#).expect("an entry");
        assert_eq!(
            of_worker(&unit(), 3, &started).join(" "),
            "_SYSTEMD_UNIT=a.service SOCKD_WORKER=3 + _SYSTEMD_UNIT=a.service _PID=1"
        );
    }
}
