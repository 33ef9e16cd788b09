//! `sockd check`: looks for everything wrong with a configuration before systemd does, as `nginx -t`.
//!
//! Reads files and asks systemctl. It must never start what it checks, bind a socket, or change anything.
#![forbid(unsafe_code)]

mod account;
mod application;
mod module;
mod options;
mod subject;
mod trial;
mod unit;
mod version;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::ArgValueCompleter;
use serde::Serialize;

use crate::config::{self, Options};
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::doctor::facts::Account;
use crate::exit;
use crate::fallback::{self, LARGEST_PAGE};
use crate::regular_file;
use crate::systemd::unit_name::{BadName, INSTANCES};
use crate::systemd::{Manager, UnitName};

use super::adopt::overridden::overridden;
use super::whose::Whose;
use super::{complete, next_step, output};
use account::Way;
use subject::Subject;

/// The options of `sockd check`.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  sockd check\n  sockd check gunicorn.service\n  sockd check /etc/sockd/web.toml\n  sockd check -- venv/bin/gunicorn --workers 3 myproject.wsgi:application"
)]
pub struct Arguments {
    /// A file, an instance (web: /etc/sockd/web.toml) or a unit [default: all instances]
    #[arg(value_name = "FILE or UNIT", conflicts_with = "command", add = ArgValueCompleter::new(complete::unit_or_file))]
    pub target: Option<String>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// Tell the problems as JSON
    #[arg(long)]
    pub json: bool,
    /// Check this command line instead, as `sockd run` would run it from here
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What keeps a unit from working, for `sockd doctor`: of one that runs sockd, and of one that runs a server by itself.
pub(super) fn of_unit(unit: &str) -> Diagnostics {
    let mut problems = unit::subject_of_any(unit).map(check).unwrap_or_default();
    problems.extend(unit.parse().ok().and_then(|unit: UnitName| overridden(&unit.of(Manager::System))));
    problems
}

/// What would keep a command from working in the place of a unit's own, as `sockd run` would run it: for `adopt`, which
/// asks before it writes.
pub(super) fn of_command(unit: &str, command: Vec<OsString>) -> Diagnostics {
    let subject = unit::subject_of_any(unit).map(|mut subject| {
        subject.options.command = command;
        subject
    });
    subject.map(check).unwrap_or_default()
}

/// What would keep a new application from working: for `new`, which asks before it writes.
pub(super) fn of_new(user: &str, directory: &Path, command: Vec<OsString>) -> Diagnostics {
    of_instance(user, directory, Vec::new(), command)
}

/// The same with variables, for what `adopt` makes an instance.
pub(super) fn of_instance(
    user: &str,
    directory: &Path,
    variables: Vec<(OsString, OsString)>,
    command: Vec<OsString>,
) -> Diagnostics {
    let account = match Account::find(user, "", &[]) {
        Ok(account) => account,
        Err(why) => return Diagnostic::error(why).into(),
    };
    check(Subject {
        name: String::new(),
        options: Options { command, directory: Some(directory.to_owned()), ..Options::default() },
        environment: unit::environment().into_iter().chain(variables).collect(),
        directory: directory.to_owned(),
        environment_files: Vec::new(),
        account: Some(account),
        problems: Diagnostics::default(),
    })
}

/// Runs `sockd check`: 0 when all is well or there are warnings alone, 78 when there are errors, 1 when there was
/// nothing to look at.
pub fn run(arguments: &Arguments) -> ExitCode {
    let subjects = match subjects(arguments, Path::new(INSTANCES)) {
        Ok(subjects) => subjects,
        Err(why) => {
            output::complain(&format!("cannot check: {why}"));
            return ExitCode::from(exit::FAILURE);
        }
    };
    let found: Vec<(String, Diagnostics)> =
        subjects.into_iter().map(|subject| (subject.name.clone(), check(subject))).collect();
    let text = if arguments.json { json(&found) } else { report(&found, output::colour_wanted()) };
    if let Err(error) = output::print(&text) {
        output::complain(&format!("cannot write: {error}"));
        return ExitCode::from(exit::FAILURE);
    }
    let wrong = found.iter().any(|(_, problems)| problems.has_errors());
    ExitCode::from(if wrong { exit::CONFIG } else { exit::SUCCESS })
}

/// What is to be checked.
///
/// # Errors
/// Why there is nothing to look at.
fn subjects(arguments: &Arguments, instances: &Path) -> Result<Vec<Subject>, String> {
    if !arguments.command.is_empty() {
        let options = Options { command: arguments.command.clone(), ..Options::default() };
        return Ok(vec![Subject::here("command".to_owned(), options)?]);
    }
    let Some(target) = &arguments.target else {
        // A directory that is not there has no files.
        let entries = std::fs::read_dir(instances).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        return match files.is_empty() {
            true => Err(format!("there is no file {}/*.toml; {}", instances.display(), next_step::of_running("check"))),
            false => files.into_iter().map(instance).collect(),
        };
    };
    if target.contains('/') || target.ends_with(".toml") {
        let file = PathBuf::from(target);
        let extension = file.extension().and_then(|extension| extension.to_str());
        if let (Some("service" | "socket"), Some(name)) = (extension, file.file_name().and_then(|name| name.to_str())) {
            return Err(format!(
                "{target} is a unit file: `sockd check {name}` checks the unit as systemd has read it"
            ));
        }
        // A file of /etc/sockd is checked as its unit would run it.
        return Ok(vec![if file.parent() == Some(instances) { instance(file) } else { file_alone(file) }?]);
    }
    let unit = match instances == Path::new(INSTANCES) {
        true => UnitName::complete(target),
        false => UnitName::complete_among(target, instances),
    };
    let unit = arguments.whose.unit(&unit.map_err(|error| error.to_string())?);
    let file = unit.instance().map(|name| instances.join(format!("{name}.toml")));
    Ok(vec![match file.filter(|file| file.exists()) {
        Some(file) => instance(file)?,
        None => {
            let mut subject = unit::subject(&unit)?;
            subject.problems.extend(overridden(&unit));
            subject
        }
    }])
}

/// An instance's file, with what its unit adds if systemd knows it.
fn instance(file: PathBuf) -> Result<Subject, String> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let unit = format!("sockd@{name}.service").parse().map_err(|error: BadName| error.to_string())?;
    match unit::show(&unit) {
        Ok(properties) => {
            let mut subject = unit::surroundings(file.display().to_string(), &properties);
            subject.options.config = Some(readable(file)?);
            Ok(subject)
        }
        Err(_) => file_alone(file),
    }
}

fn file_alone(file: PathBuf) -> Result<Subject, String> {
    let options = Options { config: Some(readable(file.clone())?), ..Options::default() };
    Subject::here(file.display().to_string(), options)
}

/// Tells a file that cannot be looked at from one that is wrong.
fn readable(file: PathBuf) -> Result<PathBuf, String> {
    let opened = regular_file::open(&file).map(drop);
    opened.map(|()| file.clone()).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// All that is wrong with one subject.
fn check(subject: Subject) -> Diagnostics {
    let mut problems = subject.problems;
    if problems.has_errors() {
        return problems;
    }
    let (mut settings, canary_workers) = match config::load(None, &subject.options) {
        Ok(loaded) => {
            problems.append(loaded.warnings);
            (loaded.settings, loaded.canary_workers)
        }
        Err(found) => {
            problems.append(found);
            return problems;
        }
    };
    settings.environment_files.splice(0..0, subject.environment_files);
    let resolved = config::resolve(&settings, &subject.environment, &subject.directory);
    let page = settings.fallback.page.as_deref();
    if let Some(Err(why)) = page.map(fallback::read_page) {
        let help = format!(
            "name an HTML file in UTF-8 of at most {} KiB, or leave page out of [fallback]",
            LARGEST_PAGE >> 10
        );
        problems.push(Diagnostic::error(why).help(help));
    }
    if let Some(account) = &subject.account {
        // Even where the command does not resolve, the way to it can be looked at.
        let written = settings.directory.as_ref().unwrap_or(&subject.directory);
        let (directory, program) = match &resolved {
            Ok(command) => (command.directory.clone(), command.program.clone()),
            Err(_) => (written.clone(), written.join(&settings.command[0])),
        };
        let ways = [(directory.as_path(), Way::Enter), (&program, Way::Execute)];
        let page = page.map(|page| (page, Way::Read));
        problems.append(account::check_ways(account, ways.into_iter().chain(page)));
    }
    match resolved {
        Ok(command) => {
            if settings.directory.is_none() && command.directory != subject.directory {
                problems.push(stays_in_release(&subject.directory, &command.directory));
            }
            problems.append(application::check(&settings.command, &command));
            problems.extend(trial::check(&settings, &command, canary_workers));
            problems.extend(config::resolve_health_command(&settings, &command).err());
            problems.extend(config::resolve_checks(&settings, &command).into_iter().filter_map(Result::err));
            problems.extend(config::resolve_after(&settings, &command).err());
        }
        Err(found) => problems.append(found),
    }
    problems
}

/// systemd follows a symbolic link to the working directory at the start, and sockd does not learn of the link.
fn stays_in_release(written: &Path, real: &Path) -> Diagnostic {
    let (written, real) = (written.display(), real.display());
    Diagnostic::warning(format!(
        "WorkingDirectory={written} leads to {real} by a symbolic link, which systemd follows at the start alone: a reload \
         would load what is in {real}, wherever the link leads by then"
    ))
    .help(format!(
        "write `--directory {written}` behind `sockd run`, or directory = \"{written}\" into its configuration: sockd \
         follows that at each reload"
    ))
}

/// The problems for a reader, and the verdict in the last line.
fn report(found: &[(String, Diagnostics)], colour: bool) -> String {
    let mut text = String::new();
    for (name, problems) in found {
        if found.len() > 1 {
            let verdict = if problems.is_empty() { " ok" } else { "" };
            text.push_str(&format!("{name}:{verdict}\n"));
        }
        text.push_str(&problems.render(colour));
    }
    let all = || found.iter().flat_map(|(_, problems)| problems);
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let verdict = match (all().count(), all().any(|problem| problem.severity == Severity::Error)) {
        (0, _) => "ok".to_owned(),
        (warnings, false) => format!("ok, {}", plural(warnings, "warning")),
        (count, true) => plural(count, "problem"),
    };
    text.push_str(&format!("{verdict}\n"));
    text
}

/// One subject in `--json`.
#[derive(Serialize)]
struct Checked<'a> {
    name: &'a str,
    ok: bool,
    problems: Vec<Problem<'a>>,
}

/// One problem in `--json`. Lines and columns are counted from 1, columns in characters.
#[derive(Serialize)]
struct Problem<'a> {
    severity: String,
    message: &'a str,
    help: Option<&'a str>,
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
}

impl<'a> Problem<'a> {
    fn new(problem: &'a Diagnostic, problems: &Diagnostics) -> Self {
        let location = problem.location.as_ref();
        let (line, column) = location.and_then(|location| problems.line_and_column(location)).unzip();
        Self {
            severity: problem.severity.to_string(),
            message: &problem.message,
            help: problem.help.as_deref(),
            file: location.map(|location| location.file.display().to_string()),
            line,
            column,
        }
    }
}

/// The problems for a program.
fn json(found: &[(String, Diagnostics)]) -> String {
    let checked: Vec<Checked<'_>> = found
        .iter()
        .map(|(name, problems)| Checked {
            name,
            ok: !problems.has_errors(),
            problems: problems.iter().map(|problem| Problem::new(problem, problems)).collect(),
        })
        .collect();
    output::json(&checked)
}

#[cfg(test)]
mod tests;
