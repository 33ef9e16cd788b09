//! `sockd explain`: what was so at a moment, and what most likely caused it.
//!
//! Owns: who is asked, and where the recording of a stopped unit is read.
//! Never: changes anything. The rules are `crate::explain`'s.

pub mod render;
pub mod report;
pub mod time;

use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::instance::{state_directories, who_may};
use super::status::Collector;
use super::status::report::Entry;
use super::whose::Whose;
use super::{complete, next_step, output};
use crate::control::{self, Recording};
use crate::systemd::{Manager, UnitName};
use crate::{exit, explain, recording};
use report::InstanceExplanation;

/// The options of `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sockd explain\n  sockd explain gunicorn\n  sockd explain gunicorn 10:42\n  \
                  sockd explain gunicorn \"5min ago\"\n  sockd explain gunicorn --json | jq '.[].explanation.causes[0].id'\n\n\
                  sockd records once a second while something happens: requests, errors, queue, busy workers, memory,\n\
                  processor time, what slow requests wait for, and what it writes to the journal about workers and\n\
                  reloads. The last 15 minutes are kept, at least. explain finds the trouble that is nearest to TIME,\n\
                  or the last one, compares it with the calm time before, and names what most likely caused it, with\n\
                  the evidence and a command that shows more. What workers wait for is the kernel's word.\n\n\
                  TIME is local time, or UTC where that stands behind it: \"10:42\", \"10:42:10\", \"2026-11-30 10:42\",\n\
                  \"10:42 UTC\", \"5min ago\", \"now\". What is shown is UTC.\n\n\
                  The recording outlives a crash of sockd, and a stop of the unit, where the unit has a\n\
                  StateDirectory=, as what sockd adopt writes and sockd@.service have: it is the files sockd-recording\n\
                  and sockd-recording.before in the first of its directories. Without it the recording is in memory\n\
                  and ends with sockd. Paths are recorded without their query.\n\n\
                  uWSGI, Puma and PHP-FPM do not show their requests by themselves: of them, queue, memory, processor\n\
                  time and events are recorded.\n\n\
                  Exit codes:\n  0  all that was asked for is shown\n  1  a recording is not known, and why is on stderr\n  4  no such unit")]
pub struct Arguments {
    /// The unit, with or without ".service" [default: all of sockd's]
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    unit: Option<String>,
    /// The moment of the trouble [default: the last trouble]
    #[arg(value_name = "TIME")]
    time: Option<String>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// Print an array of objects for programs
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let (unit, asked) = match question(arguments, now) {
        Ok(question) => question,
        Err(why) => {
            output::complain(&why);
            return ExitCode::from(exit::USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot set up: {error}")),
    };
    let units: Vec<UnitName> = unit.iter().map(|unit| arguments.whose.unit(unit)).collect();
    let (all, missing) = runtime.block_on(gather(&units, arguments.whose, asked, now));
    let text = match arguments.json {
        true => output::json(&all),
        false => render::render(&all, now, output::width(), output::colour_wanted()),
    };
    if let Err(error) = output::print(&text) {
        return failed(&format!("cannot write to stdout: {error}"));
    }
    let errors = all.iter().filter_map(|one| Some((&one.name, one.error.as_ref()?)));
    errors.clone().for_each(|(name, why)| output::complain(&format!("{name}: {why}")));
    ExitCode::from(match all.iter().filter(|one| one.explanation.is_none()).count() {
        _ if missing => exit::NO_SUCH_UNIT,
        0 => exit::SUCCESS,
        _ => exit::FAILURE,
    })
}

/// The unit and the moment. A moment alone means all units.
fn question(arguments: &Arguments, now: u64) -> Result<(Option<UnitName>, Option<u64>), String> {
    let moment = |text: &str| time::parse(text, now, local_offset());
    let name = |text: &str| UnitName::from_str(text).map_err(|error| error.to_string());
    match (&arguments.unit, &arguments.time) {
        (None, _) => Ok((None, None)),
        (Some(unit), Some(time)) => Ok((Some(name(unit)?), Some(moment(time)?))),
        (Some(word), None) => match moment(word) {
            Ok(moment) => Ok((None, Some(moment))),
            Err(_) => Ok((Some(name(word)?), None)),
        },
    }
}

/// How many minutes local time is before UTC, as date(1) knows it: `+0130`.
fn local_offset() -> i64 {
    let said = Command::new("date").arg("+%z").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let digits = said.trim().get(1..).and_then(|digits| digits.parse::<i64>().ok()).unwrap_or(0);
    let minutes = digits / 100 * 60 + digits % 100;
    if said.starts_with('-') { -minutes } else { minutes }
}

/// All that was asked for, and whether one of the units does not exist.
async fn gather(units: &[UnitName], whose: Whose, asked: Option<u64>, now: u64) -> (Vec<InstanceExplanation>, bool) {
    let report = Collector::new(units, whose.managers()).report().await;
    report.systemd_error.iter().for_each(|why| output::complain(&format!("cannot ask systemd: {why}")));
    let mut all = Vec::new();
    let mut missing = false;
    for entry in &report.entries {
        let mut found = InstanceExplanation {
            unit: entry.unit.clone(),
            user: entry.user,
            pid: entry.pid,
            name: entry.name(),
            ..InstanceExplanation::default()
        };
        missing |= entry.exit_code() == exit::NO_SUCH_UNIT;
        match ask(entry).await {
            Ok((recording, error)) => {
                let entries: Vec<_> = recording.entries.into_iter().map(recording::bounded).collect();
                let unit = entry.unit.as_deref().unwrap_or("UNIT");
                let unit = unit.strip_suffix(".service").unwrap_or(unit);
                found.explanation = Some(explain::explain(&entries, unit, asked, now));
                (found.in_memory, found.problem, found.error) = (recording.in_memory, recording.problem, error);
            }
            Err(why) => found.error = Some(why),
        }
        all.push(found);
    }
    (all, missing)
}

/// The recording of an instance; where it does not answer, what it has written, and why it does not answer.
async fn ask(entry: &Entry) -> Result<(Recording, Option<String>), String> {
    let manager = if entry.user { Manager::User } else { Manager::System };
    if let Some(pid) = entry.pid {
        let why = match ask_process(pid).await {
            Ok(recording) => return Ok((recording, None)),
            Err(why) => why,
        };
        let kept = entry.unit.as_ref().and_then(|unit| kept(manager, unit).ok());
        return match kept.filter(|kept| !kept.entries.is_empty()) {
            Some(kept) => Ok((kept, Some(format!("{why}; shown is what it had written")))),
            None => Err(why),
        };
    }
    match (&entry.unit, &entry.systemd) {
        (Some(unit), Some(state)) if state.load_state == "not-found" => {
            Err(format!("there is no unit {unit}; {}", next_step::of_running("explain")))
        }
        (Some(unit), Some(state)) if state.main_pid == 0 => kept(manager, unit).map(|kept| (kept, None)),
        _ => {
            Err(entry.sockd_error.clone().or(entry.systemd_error.clone()).unwrap_or_else(|| "it is not running".into()))
        }
    }
}

async fn ask_process(pid: u32) -> Result<Recording, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot ask it: {error}");
    let instance = control::of_process(pid).await.map_err(|error| cannot(&error))?;
    control::ask_recording(&instance).await.map_err(|error| match error {
        error if error.is_denial() => format!("{} ask it", who_may(instance.uid)),
        error if error.is_unknown_request() => cannot(&control::OLDER),
        error => cannot(&error),
    })
}

/// What a stopped unit has left in its state directory.
fn kept(manager: Manager, unit: &str) -> Result<Recording, String> {
    let directories = state_directories(manager, unit)?;
    if directories.is_empty() {
        return Err(format!(
            "it is stopped, and without StateDirectory= its recording ends with it; `{} edit {unit}` can add \
             StateDirectory=sockd-%N to [Service]",
            manager.systemctl()
        ));
    }
    let found = directories.iter().find(|directory| directory.join(recording::FILE_NAME).exists());
    let Some(directory) = found else { return Err("it is stopped, and has recorded nothing".to_owned()) };
    Ok(recording::read(directory))
}

fn failed(message: &str) -> ExitCode {
    output::complain(message);
    ExitCode::from(exit::FAILURE)
}
