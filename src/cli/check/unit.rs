//! What systemd knows of a unit, by `systemctl show`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::adapter::shlex;
use crate::config::{self, Options};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::doctor::facts::Account;
use crate::systemd::show::{self, Properties, arguments, first};
use crate::systemd::{Manager, UnitName};

use super::subject::Subject;
use crate::cli::{next_step, run};

/// The PATH that systemd gives its services (systemd.exec(5)).
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

const PROPERTIES: &str = "LoadState,LoadError,ExecStart,User,Group,SupplementaryGroups,DynamicUser,WorkingDirectory,\
                          Environment,EnvironmentFiles,Type";

/// The arguments of sockd in an ExecStart line.
#[derive(Parser)]
#[command(name = "sockd run", no_binary_name = true)]
struct Line {
    #[command(flatten)]
    arguments: run::Arguments,
}

/// Asks systemd for a unit.
///
/// # Errors
/// Why there is no answer: no systemctl, no systemd, no such unit.
pub(super) fn show(unit: &UnitName) -> Result<Properties, String> {
    let properties = show::properties(unit.manager(), unit.as_str(), PROPERTIES)?;
    match first(&properties, "LoadState") {
        "loaded" => Ok(properties),
        "not-found" => Err(format!("there is no unit {unit}; {}", next_step::of_running("check"))),
        state => Err(format!("{unit} is {state}: {}", first(&properties, "LoadError"))),
    }
}

/// What is to be checked of a unit.
///
/// # Errors
/// Why there is nothing to look at.
pub(super) fn subject(unit: &UnitName) -> Result<Subject, String> {
    let properties = show(unit)?;
    let mut subject = surroundings(unit.to_string(), &properties);
    match options(unit.as_str(), &properties) {
        Ok(options) => {
            subject.problems.extend(waits_for_the_end(unit.as_str(), &properties));
            subject.problems.extend(runs_elsewhere(unit.as_str(), &options, &subject.directory));
            subject.options = options;
        }
        Err(problem) => subject.problems.push(problem),
    }
    Ok(subject)
}

/// A unit that runs sockd and whose Type= makes systemd wait until the program that it has started ends
/// (systemd.service(5)).
fn waits_for_the_end(unit: &str, properties: &Properties) -> Option<Diagnostic> {
    let service_type = first(properties, "Type");
    matches!(service_type, "forking" | "oneshot").then(|| {
        Diagnostic::error(format!(
            "{unit} is Type={service_type}: systemd waits for the end of the program that it starts, and sockd stays"
        ))
        .help("write Type=notify into [Service] and take PIDFile= out; then `systemctl daemon-reload`")
    })
}

/// A unit whose WorkingDirectory= was changed after `adopt` had written the directory down, which wins.
fn runs_elsewhere(unit: &str, options: &Options, written: &Path) -> Option<Diagnostic> {
    let ours = options.directory.as_deref()?;
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    (written != Path::new("/") && real(ours) != real(written)).then(|| {
        Diagnostic::warning(format!(
            "{unit} has WorkingDirectory={}, and its ExecStart= has --directory {}, where the workers run",
            written.display(),
            ours.display()
        ))
        .help(format!("change the one that is not meant: `systemctl cat {unit}` shows where each is written"))
    })
}

/// The same of a unit that runs a server by itself: as `sockd run` would run its command line.
///
/// # Errors
/// Why there is nothing to look at.
pub(super) fn subject_of_any(unit: &str) -> Result<Subject, String> {
    let properties = show::properties(Manager::System, unit, PROPERTIES)?;
    let mut subject = surroundings(unit.to_owned(), &properties);
    let command = properties.get("ExecStart").and_then(|lines| arguments(lines.last()?)).unwrap_or_default();
    subject.options = match options(unit, &properties) {
        Ok(options) => {
            subject.problems.extend(waits_for_the_end(unit, &properties));
            options
        }
        Err(_) if command.is_empty() => return Err(format!("{unit} starts nothing")),
        // adopt writes the directory down where a link leads to it.
        Err(_) => Options {
            command: command.into_iter().map(OsString::from).collect(),
            directory: Some(subject.directory.clone()),
            ..Options::default()
        },
    };
    Ok(subject)
}

/// The variables that systemd gives every service.
pub(super) fn environment() -> BTreeMap<OsString, OsString> {
    BTreeMap::from([(OsString::from("PATH"), OsString::from(SERVICE_PATH))])
}

/// What sockd would be surrounded by in a unit: user, directory, environment.
pub(super) fn surroundings(name: String, properties: &Properties) -> Subject {
    let mut problems = Diagnostics::default();
    let mut environment = environment();
    let assignments = shlex::split(first(properties, "Environment")).unwrap_or_default();
    let variables = assignments.iter().filter_map(|assignment| assignment.split_once('='));
    environment.extend(variables.map(|(name, value)| (name.into(), value.into())));

    let user = first(properties, "User");
    let mut account = None;
    if !user.is_empty() && first(properties, "DynamicUser") != "yes" {
        let groups = shlex::split(first(properties, "SupplementaryGroups")).unwrap_or_default();
        match Account::find(user, first(properties, "Group"), &groups) {
            Ok(found) => account = Some(found),
            Err(why) => problems.push(Diagnostic::error(why)),
        }
    }
    // `!/home/sammy` may be missing: then it is the root. `~` is the user's home, which `id` does not tell.
    let written = first(properties, "WorkingDirectory");
    let directory = match written.strip_prefix('!') {
        Some(optional) => Path::new(optional).is_dir().then_some(optional),
        None => written.starts_with('/').then_some(written),
    };
    Subject {
        name,
        options: Options::default(),
        environment,
        directory: directory.unwrap_or("/").into(),
        environment_files: environment_files(properties),
        account,
        problems,
    }
}

/// The options of `sockd run` in a unit's ExecStart.
fn options(unit: &str, properties: &Properties) -> Result<Options, Diagnostic> {
    let Some(arguments) = properties.get("ExecStart").and_then(|lines| arguments(lines.last()?)) else {
        return Err(Diagnostic::error(format!("{unit} starts nothing")).help("name the service, not its socket"));
    };
    let program = arguments.first().map_or("", String::as_str);
    if program.rsplit('/').next() != Some("sockd") {
        let message = format!("{unit} does not run sockd: its ExecStart= is {}", arguments.join(" "));
        return Err(Diagnostic::error(message).help(format!("`sockd adopt {unit}` shows how to change it")));
    }
    if arguments.get(1).map(String::as_str) != Some("run") {
        return Err(Diagnostic::error(format!("{unit} runs sockd without `run`: {}", arguments.join(" "))));
    }
    Line::try_parse_from(&arguments[2..]).map(|line| line.arguments.options).map_err(|error| {
        let words: Vec<OsString> = arguments[2..].iter().map(OsString::from).collect();
        if let Some(right) = config::with_dashes(&words, &error) {
            let message = format!("ExecStart= of {unit}: the server's command stands behind --");
            return Diagnostic::error(message).help(format!("write {right}"));
        }
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Diagnostic::error(format!("ExecStart= of {unit}: {message}"))
    })
}

/// `EnvironmentFiles=/etc/default/web (ignore_errors=yes)`, once for each file.
fn environment_files(properties: &Properties) -> Vec<PathBuf> {
    let lines = properties.get("EnvironmentFiles").into_iter().flatten();
    let files = lines.filter_map(|line| {
        let (file, flag) = line.rsplit_once(" (ignore_errors=")?;
        // A pattern is systemd's to expand.
        let plain = !file.contains(['*', '?', '[']);
        plain.then(|| if flag.starts_with("yes") { format!("-{file}").into() } else { file.into() })
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::show::parse;

    #[test]
    fn two_directories_are_named_and_a_link_to_one_is_none() {
        let options = |directory: &str| Options { directory: Some(directory.into()), ..Options::default() };
        let text = runs_elsewhere("web.service", &options("/usr"), Path::new("/etc")).expect("a warning").message;
        assert!(text.contains("WorkingDirectory=/etc") && text.contains("--directory /usr"), "{text}");
        for written in ["/usr", "/proc/self/root/usr", "/"] {
            assert_eq!(runs_elsewhere("web.service", &options("/usr"), Path::new(written)), None, "{written}");
        }
        assert_eq!(runs_elsewhere("web.service", &Options::default(), Path::new("/etc")), None);
    }

    /// As systemd 252 prints it.
    const SHOWN: &str = "\
EnvironmentFiles=/etc/default/web (ignore_errors=no)
EnvironmentFiles=/etc/default/web.local (ignore_errors=yes)
Environment=DEBUG=0 \"NAME=two words\" PATH=/venv/bin
WorkingDirectory=/home/sammy/myprojectdir
ExecStart={ path=/usr/bin/sockd ; argv[]=/usr/bin/sockd run --workers 3 --log-format json -- venv/bin/gunicorn --bind unix:/run/gunicorn.sock a.wsgi:application ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
User=
DynamicUser=no
LoadState=loaded
";

    #[test]
    fn a_units_command_is_read() {
        let options = options("web.service", &parse(SHOWN)).expect("it runs sockd");
        assert_eq!(options.workers, Some(3));
        assert_eq!(options.command, ["venv/bin/gunicorn", "--bind", "unix:/run/gunicorn.sock", "a.wsgi:application"]);
    }

    #[test]
    fn a_units_surroundings_are_read() {
        let subject = surroundings("web".to_owned(), &parse(SHOWN));
        assert_eq!(subject.directory, Path::new("/home/sammy/myprojectdir"));
        assert_eq!(subject.environment_files, [Path::new("/etc/default/web"), Path::new("-/etc/default/web.local")]);
        let variable = |name: &str| subject.environment[&OsString::from(name)].to_str().expect("it is text").to_owned();
        assert_eq!(
            (variable("DEBUG"), variable("NAME"), variable("PATH")),
            ("0".into(), "two words".into(), "/venv/bin".into())
        );
        assert!(subject.problems.is_empty() && subject.account.is_none());
        for (written, directory) in [("!/nowhere", "/"), ("!/usr", "/usr"), ("/nowhere", "/nowhere"), ("", "/")] {
            let text = SHOWN.replace("=/home/sammy/myprojectdir", &format!("={written}"));
            assert_eq!(surroundings("web".to_owned(), &parse(&text)).directory, Path::new(directory), "{written}");
        }
    }

    #[test]
    fn a_unit_that_does_not_run_sockd_is_reported() {
        for (from, to, part) in [
            (
                "argv[]=/usr/bin/sockd run --workers 3 --log-format json -- ",
                "argv[]=",
                "does not run sockd: its ExecStart= is venv/bin/gunicorn",
            ),
            ("sockd run", "sockd demo", "without `run`"),
            ("--workers 3", "--workers 0", "0 is not in 1..=4096"),
            ("--workers", "--wrokers", "'--wrokers'"),
            ("ExecStart", "ListenStream", "starts nothing"),
        ] {
            let text = SHOWN.replace(from, to);
            assert_ne!(text, SHOWN);
            let problem = options("web.service", &parse(&text)).expect_err(part);
            assert!(problem.message.contains(part), "{part:?}: {}", problem.message);
        }
    }

    #[test]
    fn a_type_that_waits_for_the_end_is_reported() {
        for (service_type, waits) in
            [("forking", true), ("oneshot", true), ("notify", false), ("notify-reload", false), ("simple", false)]
        {
            let properties = parse(&format!("{SHOWN}Type={service_type}\n"));
            assert_eq!(waits_for_the_end("web.service", &properties).is_some(), waits, "{service_type}");
        }
    }

    #[test]
    fn a_user_that_does_not_exist_is_reported() {
        let text = SHOWN.replace("User=\n", "User=no-such-user-here\n");
        let subject = surroundings("web".to_owned(), &parse(&text));
        assert_eq!(subject.problems.to_string(), "there is no user no-such-user-here");
    }
}
