//! `sockd doctor`: which link between the browser and the application is broken, and the one command that fixes it.
//!
//! Owns: the options, the choice of units, the exit code.
//! Never: changes anything. The facts are `crate::doctor`'s, and so are the rules.

pub mod render;

use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::whose::Whose;
use super::{check, complete, output};
use crate::diagnostic::Severity;
use crate::doctor::facts::{self, Question};
use crate::doctor::{Diagnosis, Problem, diagnose, idle};
use crate::exit;
use crate::systemd::{Manager, UnitName};

/// Without a name no more units than this are looked at, one after the other: a page that nobody answers takes ten seconds.
const MAX_UNITS: usize = 50;

/// The options of `doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sockd doctor\n  sockd doctor gunicorn\n  sockd doctor gunicorn --host www.example.com\n  \
                  sockd doctor gunicorn --path /shop/\n  \
                  sockd doctor --json gunicorn | jq '.[].findings[].fix'\n\n\
                  It changes nothing. As any visitor does, it asks for a page, which starts a service that waits\n\
                  for its first connection. Run it as root to see everything.\n\n\
                  Exit codes:\n  0  no link is broken, as far as was checked\n  1  a link is broken\n  4  no such unit"
)]
pub struct Arguments {
    /// The unit, with or without ".service" [default: all that run an application server]
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::all_units))]
    pub unit: Option<UnitName>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// The name that the browser asks for
    #[arg(long, value_name = "NAME", value_parser = host)]
    pub host: Option<String>,
    /// The path of the page to ask for
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = path)]
    pub path: String,
    /// Print an array of objects for programs
    #[arg(long)]
    pub json: bool,
}

/// A name that can stand in a command and in a configuration as it is.
fn host(text: &str) -> Result<String, String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-:[]".contains(letter);
    match !text.is_empty() && text.len() <= 253 && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("write a name such as www.example.com, without http:// and without a path".to_owned()),
    }
}

/// What can stand in the first line of a request as it is.
fn path(text: &str) -> Result<String, String> {
    match text.starts_with('/') && text.len() <= 2048 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("write a path such as /shop/, as it stands in the address of the browser".to_owned()),
    }
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot set up: {error}")),
    };
    let (found, none) = match runtime.block_on(diagnoses(arguments)) {
        Ok(found) => found,
        Err(why) => return failed(&format!("cannot look: {why}")),
    };
    let text = match arguments.json {
        true => json(&found),
        false => render::render(&found, output::width(), output::colour_wanted()),
    };
    if let Err(error) = output::print(&text) {
        return failed(&format!("cannot write to stdout: {error}"));
    }
    if none {
        return ExitCode::from(exit::NO_SUCH_UNIT);
    }
    ExitCode::from(if found.iter().any(Diagnosis::is_broken) { exit::FAILURE } else { exit::SUCCESS })
}

/// A diagnosis of every unit, and whether there is no such unit.
async fn diagnoses(arguments: &Arguments) -> Result<(Vec<Diagnosis>, bool), String> {
    let units = match &arguments.unit {
        Some(unit) if arguments.whose.unit(unit).manager() == Manager::User => {
            return Err(format!(
                "{unit} is a unit of your own service manager, and doctor knows those of the system alone; `sockd check \
                 --user {unit}` looks at its command, and `sockd logs --user {unit}` shows what it says"
            ));
        }
        Some(unit) => vec![unit.to_string()],
        None => {
            let (units, rest) = first_few(facts::application_units().await?);
            rest.iter().for_each(|rest| output::complain(rest));
            units
        }
    };
    let mut found = Vec::new();
    let mut none = units.is_empty();
    for unit in units {
        let question = Question { unit, host: arguments.host.clone(), path: arguments.path.clone() };
        let facts = facts::gather(&question, problems).await?;
        none |= facts.service.load_state == "not-found";
        let idle = if arguments.unit.is_none() { idle(&facts) } else { None };
        found.push(idle.unwrap_or_else(|| diagnose(&facts)));
    }
    Ok((found, none))
}

/// Those that are looked at, and what is said of the others.
fn first_few(mut units: Vec<String>) -> (Vec<String>, Option<String>) {
    let all = units.len();
    let rest = units.get(MAX_UNITS).map(|next| {
        format!("{all} units run an application server, and the first {MAX_UNITS} are looked at; name others: sockd doctor {next}")
    });
    units.truncate(MAX_UNITS);
    (units, rest)
}

/// What `sockd check` says of a unit.
fn problems(unit: &str) -> Vec<Problem> {
    let found = check::of_unit(unit);
    let problem = |problem: &crate::diagnostic::Diagnostic| Problem {
        error: problem.severity == Severity::Error,
        message: problem.message.clone(),
        help: problem.help.clone(),
    };
    found.iter().map(problem).collect()
}

/// The array for programs, with a line break at its end.
pub fn json(found: &[Diagnosis]) -> String {
    output::json(&found)
}

fn failed(message: &str) -> ExitCode {
    output::complain(message);
    ExitCode::from(exit::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ten_thousand_units_a_few_are_looked_at_and_it_is_said_how_to_go_on() {
        let units = |count: usize| (0..count).map(|number| format!("{number}.service")).collect::<Vec<_>>();
        assert_eq!(first_few(units(MAX_UNITS)), (units(MAX_UNITS), None));
        let (few, rest) = first_few(units(10_000));
        assert_eq!(few, units(MAX_UNITS));
        assert!(rest.is_some_and(|rest| rest.starts_with("10000 units") && rest.ends_with("sockd doctor 50.service")));
    }

    #[test]
    fn a_path_is_a_path_and_nothing_else() {
        for good in ["/", "/shop/?page=2&x=%20"] {
            assert_eq!(path(good).as_deref(), Ok(good));
        }
        for bad in ["", "shop", "/a b", "/a\r\nX: y", "/caf\u{e9}", "http://example.com/"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_is_a_name_and_nothing_else() {
        for good in ["example.com", "www.a-b.example", "127.0.0.1", "[::1]:8000"] {
            assert_eq!(host(good).as_deref(), Ok(good));
        }
        for bad in ["", "http://example.com", "a b", "a;b", "a'b", "a/b", "$(x)", &"a".repeat(254)] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
