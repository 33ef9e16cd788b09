//! `sockd status`: every instance, its unit, its sockets and its workers.
//!
//! Owns: the options, the order of things and the exit code.
//! Never: changes anything, or waits longer than a few seconds whatever is broken.

mod collect;
pub mod format;
pub mod list;
pub mod render;
pub mod report;
pub mod terminal;

pub(super) use collect::{Collector, user_name};

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::whose::Whose;
use super::{complete, next_step, output};
use crate::exit;
use crate::systemd::UnitName;
use report::{Entry, StatusReport};

/// How often `--watch` looks again.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// The options of `status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sockd status              all of sockd's: one whole, several one line each\n  sockd status gunicorn     one whole\n  sockd status --watch\n  sockd status --json | jq '.[].sockd.workers'\n\n\
                  Exit codes, as of systemctl status:\n  0    running\n  3    not running\n  4    no such unit\n  \
                  150  running, and no visitor gets a page\n  Of several units the highest counts."
)]
pub struct Arguments {
    /// The units to show, with or without ".service"; all of sockd's when none is named
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    pub units: Vec<UnitName>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// Print an array of objects for programs
    #[arg(long, conflicts_with = "watch")]
    pub json: bool,
    /// Show it again each second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot set up: {error}")),
    };
    let units: Vec<UnitName> = arguments.units.iter().map(|unit| arguments.whose.unit(unit)).collect();
    let mut collector = Collector::new(&units, arguments.whose.managers());
    let mut look = || runtime.block_on(collector.report());
    if arguments.watch {
        let (Some(_), Some(_)) = (output::width(), output::height()) else {
            return failed("--watch wants a terminal; for programs there is --json");
        };
        loop {
            // The window may have another size each time.
            let text = show(&look(), arguments.units.is_empty());
            if let Err(error) = output::show_screen(&text) {
                return failed(&format!("cannot write to stdout: {error}"));
            }
            std::thread::sleep(WATCH_PERIOD);
        }
    }
    let report = look();
    let mut text = match arguments.json {
        true => json(&report),
        false => show(&report, arguments.units.is_empty()),
    };
    if !arguments.json {
        next(&report).iter().for_each(|next| text.push_str(&format!("Next: {next}\n")));
    }
    if let Err(error) = output::print(&text) {
        return failed(&format!("cannot write to stdout: {error}"));
    }
    ExitCode::from(report.exit_code())
}

/// All there are in a line each, where there are several; else each whole.
fn show(report: &StatusReport, all: bool) -> String {
    let (width, colour) = (output::width(), output::colour_wanted());
    match all && report.entries.len() > 1 {
        true => render::systemd_error(report, width, colour) + &list::list(report, width, colour),
        false => render::render(report, width, colour),
    }
}

/// What can be typed next where nothing of sockd's was shown.
fn next(report: &StatusReport) -> Vec<String> {
    if report.entries.is_empty() {
        return vec![next_step::adopt()];
    }
    let others = report.entries.iter().filter(|entry| entry.sockd.is_none());
    let is = |entry: &&Entry, state: &str| entry.systemd.as_ref().is_some_and(|unit| unit.load_state == state);
    let missing = others.clone().any(|entry| is(&entry, "not-found")).then(|| next_step::of_running("status"));
    let plain = others.filter(|entry| entry.runs_sockd == Some(false) && is(entry, "loaded"));
    let adopt = plain.filter_map(|entry| entry.unit.as_deref());
    let adopt = adopt.map(|unit| format!("`sockd adopt {unit}` shows how sockd would run its server"));
    adopt.chain(missing).collect()
}

/// The array for programs, with a line break at its end.
pub fn json(report: &StatusReport) -> String {
    output::json(&report.entries)
}

fn failed(message: &str) -> ExitCode {
    output::complain(message);
    ExitCode::from(exit::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::bus::UnitState;

    #[test]
    fn a_unit_that_does_not_run_sockd_is_no_dead_end() {
        let entry = |name: &str, load_state: &str, runs_sockd| Entry {
            unit: Some(name.to_owned()),
            systemd: Some(UnitState { load_state: load_state.to_owned(), ..UnitState::default() }),
            runs_sockd,
            ..Entry::default()
        };
        let report = |entries| StatusReport { now_unix_ms: 0, systemd_error: None, entries };
        let plain = next(&report(vec![entry("gunicorn.service", "loaded", Some(false))]));
        assert_eq!(plain, ["`sockd adopt gunicorn.service` shows how sockd would run its server"]);
        let missing = next(&report(vec![entry("gunicrn.service", "not-found", Some(false))]));
        assert_eq!(missing, [next_step::of_running("status")]);
        for well in [entry("web.service", "loaded", Some(true)), entry("web.service", "loaded", None)] {
            assert_eq!(next(&report(vec![well])), [""; 0]);
        }
    }
}
