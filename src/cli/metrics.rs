//! `sockd metrics`: every instance's metrics in one text, for node_exporter's textfile collector and whatever else reads it.
//!
//! Owns: which instances are in it, and how they are called.
//! Never: leaves an instance out because it cannot be asked: that is a metric, too.

use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::status::Collector;
use super::status::report::Entry;
use super::whose::Whose;
use super::{complete, output};
use crate::exit;
use crate::metrics::{self, Format, Instance};
use crate::systemd::UnitName;

/// The options of `metrics`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sockd metrics\n  sockd metrics gunicorn\n  sockd metrics | promtool check metrics\n  sockd metrics | sponge /var/lib/prometheus/node-exporter/sockd.prom\n\n\
                  An instance that cannot be asked has sockd_up 0; a unit that is stopped has none.\n\
                  Over HTTP an instance tells its own, where status.listen in sockd.toml says.\n\n\
                  Exit codes, as of sockd status:\n  0    running\n  3    not running\n  4    no such unit\n  \
                  150  running, and no visitor gets a page\n  Of several units the highest counts."
)]
pub struct Arguments {
    /// The units to measure, with or without ".service"; all of sockd's when none is named
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    units: Vec<UnitName>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// Write OpenMetrics [default: the text format of Prometheus 0.0.4]
    #[arg(long)]
    openmetrics: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot set up: {error}")),
    };
    let units: Vec<UnitName> = arguments.units.iter().map(|unit| arguments.whose.unit(unit)).collect();
    let report = runtime.block_on(Collector::new(&units, arguments.whose.managers()).report());
    report.systemd_error.iter().for_each(|why| output::complain(&format!("cannot ask systemd: {why}")));
    let instances: Vec<Instance<'_>> = report.entries.iter().filter(|entry| !is_stopped(entry)).map(instance).collect();
    let format = if arguments.openmetrics { Format::OpenMetrics } else { Format::Prometheus };
    if let Err(error) = output::print(&metrics::text(&instances, format)) {
        return failed(&format!("cannot write to stdout: {error}"));
    }
    for entry in &report.entries {
        entry.sockd_error.iter().for_each(|why| output::complain(&format!("{}: {why}", entry.name())));
    }
    ExitCode::from(report.exit_code())
}

/// Whether nobody wants it to run at this moment, or nobody yet: its socket starts it.
fn is_stopped(entry: &Entry) -> bool {
    entry.systemd.as_ref().is_some_and(|unit| unit.active_state == "inactive")
}

/// An instance under the name that it has for people: a supervisor outside a unit is called by its process.
fn instance(entry: &Entry) -> Instance<'_> {
    Instance { unit: entry.name(), status: entry.sockd.as_ref() }
}

fn failed(message: &str) -> ExitCode {
    output::complain(message);
    ExitCode::from(exit::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Status;
    use crate::systemd::bus::UnitState;

    fn entry(name: &str, active_state: &str, answers: bool) -> Entry {
        Entry {
            unit: Some(name.to_owned()),
            systemd: Some(UnitState { active_state: active_state.to_owned(), ..UnitState::default() }),
            sockd: answers.then(Status::default),
            ..Entry::default()
        }
    }

    #[test]
    fn who_should_run_and_cannot_be_asked_is_down_and_who_is_stopped_is_not() {
        let entries = [
            entry("web.service", "active", true),
            entry("silent.service", "active", false),
            entry("broken.service", "failed", false),
            entry("stopped.service", "inactive", false),
        ];
        let instances: Vec<_> = entries.iter().filter(|entry| !is_stopped(entry)).map(instance).collect();
        let text = metrics::text(&instances, Format::Prometheus);
        let up: Vec<&str> = text.lines().filter(|line| line.starts_with("sockd_up{")).collect();
        assert_eq!(
            up,
            [
                "sockd_up{unit=\"web.service\"} 1",
                "sockd_up{unit=\"silent.service\"} 0",
                "sockd_up{unit=\"broken.service\"} 0"
            ]
        );
    }
}
