//! From settings to what is really executed.
//!
//! Looks at the system afresh each time it is called: a deployment moves links, installs programs and rewrites
//! environment files. It must never execute anything, and never change anything.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::adapter::launcher::Variable;
use crate::adapter::{self, development, shlex};
use crate::app::Command;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::regular_file;
use crate::suggestion::nearest;

use super::{Settings, environment_file, inherited, load};

/// Where programs are looked for when the environment has no PATH: what systemd gives its services.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// The longest first line the kernel reads of a script, in bytes (BINPRM_BUF_SIZE).
const SCRIPT_HEAD: u64 = 256;
/// So many names of a directory are compared with one that is not there.
const MAX_COMPARED: usize = 4096;

/// The environment of the workers: what is inherited, without what speaks of sockd alone, then the environment files,
/// then the settings' own variables. A later one wins.
///
/// # Errors
/// All problems with the environment files.
pub fn resolve_environment(
    settings: &Settings,
    base_environment: &BTreeMap<OsString, OsString>,
) -> Result<BTreeMap<OsString, OsString>, Diagnostics> {
    let mut environment = base_environment.clone();
    environment.retain(|name, _| !name.to_str().is_some_and(inherited::speaks_of_sockd_alone));
    let mut problems = Diagnostics::default();
    for written in &settings.environment_files {
        let optional = written.as_os_str().as_bytes().strip_prefix(b"-");
        let file = optional.map_or(written.as_path(), |path| Path::new(OsStr::from_bytes(path)));
        if optional.is_some() && matches!(fs::metadata(file), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            continue;
        }
        match load::read(file) {
            Err(found) => problems.append(found),
            Ok(text) => {
                let contents = environment_file::parse(&text);
                for (span, message) in contents.errors {
                    problems.push(Diagnostic::error(message).at(file, span));
                }
                let variables = contents.variables.into_iter();
                environment.extend(variables.map(|(name, value)| (name.into(), value.into())));
                problems.add_secret_source(file, text);
            }
        }
    }
    environment.extend(settings.environment.iter().map(|(name, value)| (name.into(), value.into())));
    for variable in &settings.launcher.variables {
        match variable {
            Variable::Clear => environment.clear(),
            Variable::Unset(name) => drop(environment.remove(name)),
            Variable::Set(name, value) => drop(environment.insert(name.clone(), value.clone())),
        }
    }
    if problems.is_empty() { Ok(environment) } else { Err(problems) }
}

/// Finds the directory, the program and the environment of a worker, as they are now.
///
/// Symbolic links in the directory are resolved, so that a worker keeps its release when `current` moves on. The
/// program's path is made absolute and otherwise kept: a virtual environment's `python` is a link that must not be
/// followed.
///
/// `base_environment` is what sockd itself was given; `base_directory`, an absolute path, is where it was started.
///
/// # Errors
/// All problems at once.
pub fn resolve(
    settings: &Settings,
    base_environment: &BTreeMap<OsString, OsString>,
    base_directory: &Path,
) -> Result<Command, Diagnostics> {
    let mut problems = Diagnostics::default();
    let mut note = |found: Diagnostics| problems.append(found);
    let environment = resolve_environment(settings, base_environment).map_err(&mut note).ok();
    let directory = directory(settings.directory.as_deref().unwrap_or(base_directory));
    let directory = directory.map_err(|problem| note(problem.into())).ok();
    if let Some(directory) = &directory
        && let Some(problem) = for_development(&settings.command, directory)
    {
        return Err(problem.into());
    }
    let name = settings.command.first().map_or(OsStr::new(""), OsString::as_os_str);
    // What the launcher finds in an environment of its own is not for us to find.
    let find = |name: &OsStr, directory: &Path, environment: &_| {
        if settings.launcher.finds_program && !name.as_bytes().contains(&b'/') {
            return Ok(name.into());
        }
        find_program(name, directory, environment)
    };
    // Without directory or environment only an absolute path can be looked at: for the others the cause is reported.
    let program = match (&directory, &environment) {
        (Some(directory), Some(environment)) => Some(find(name, directory, environment)),
        _ => Path::new(name).is_absolute().then(|| executable(Path::new(name)).map(|()| name.into())),
    };
    let mut launcher = settings.launcher.words.clone();
    if let (Some(first), Some(directory), Some(environment)) = (launcher.first_mut(), &directory, &environment) {
        match find_program(first, directory, environment) {
            Ok(found) => *first = found.into(),
            Err(problem) => note(problem.into()),
        }
    }
    let program: Option<PathBuf> = program.and_then(|found| found.map_err(|problem| note(problem.into())).ok());
    match (program, directory, environment) {
        (Some(program), Some(directory), Some(environment)) if problems.is_empty() => {
            let mut arguments = settings.command.clone();
            // As systemd does it, and what Python finds its virtual environment by.
            arguments[0] = program.clone().into();
            Ok(Command { program, arguments, launcher, directory, environment })
        }
        _ => Err(problems),
    }
}

/// `health.command` as it is run for the workers of `command`; `None` if it is not set.
///
/// # Errors
/// Why its program cannot be executed.
pub fn resolve_health_command(settings: &Settings, command: &Command) -> Result<Option<Command>, Diagnostic> {
    resolve_program("health.command", &settings.health.command, command)
}

/// The programs of `reload.check` as they are run for `command`, each or why it cannot be executed.
pub fn resolve_checks(settings: &Settings, command: &Command) -> Vec<Result<Command, Diagnostic>> {
    let resolve = |written: &Vec<OsString>| resolve_program("reload.check", written, command).transpose();
    settings.reload.check.iter().filter_map(resolve).collect()
}

/// `reload.after` as it is run after a reload of `command`; `None` if it is not set.
///
/// # Errors
/// Why its program cannot be executed: a warning, for no reload depends on it.
pub fn resolve_after(settings: &Settings, command: &Command) -> Result<Option<Command>, Diagnostic> {
    resolve_program("reload.after", &settings.reload.after, command)
        .map_err(|problem| Diagnostic { severity: Severity::Warning, ..problem })
}

/// A program of the operator's, in the directory and the environment of the workers. `None` if none is `written`.
fn resolve_program(key: &str, written: &[OsString], command: &Command) -> Result<Option<Command>, Diagnostic> {
    let Some(name) = written.first() else { return Ok(None) };
    let program = find_program(name, &command.directory, &command.environment)
        .map_err(|problem| Diagnostic { message: format!("{key}: {}", problem.message), ..problem })?;
    Ok(Some(Command { program, arguments: written.to_vec(), launcher: Vec::new(), ..command.clone() }))
}

/// A command that starts a server for development: what to write in its place.
fn for_development(command: &[OsString], directory: &Path) -> Option<Diagnostic> {
    let entries = || fs::read_dir(directory).into_iter().flatten().flatten();
    let mut projects: Vec<String> = entries()
        .filter(|entry| entry.path().join("wsgi.py").is_file())
        .filter_map(|entry| Some(format!("{}.wsgi", entry.file_name().to_str()?)))
        .collect();
    projects.sort();
    let instead = development::instead(command, projects.first().map(String::as_str))?;
    let message = format!("{}: it takes no socket from sockd, which could not watch its workers", instead.why);
    Some(Diagnostic::error(message).help(format!("write {}", shlex::join(&instead.command))))
}

/// The working directory with its symbolic links resolved.
fn directory(written: &Path) -> Result<PathBuf, Diagnostic> {
    let cannot = |why: &str| Diagnostic::error(format!("cannot work in the directory {}: {why}", written.display()));
    let real = fs::canonicalize(written).map_err(|error| {
        let (why, help) = explain(written, &error);
        let problem = cannot(&why);
        if let Some(help) = help { problem.help(help) } else { problem }
    })?;
    if !real.is_dir() {
        return Err(cannot("it is not a directory"));
    }
    if rustix::fs::access(&real, rustix::fs::Access::EXEC_OK).is_err() {
        return Err(cannot("permission denied").help(format!(
            "the service's user needs the x permission on {}: see `namei -l {}`",
            real.display(),
            written.display()
        )));
    }
    Ok(real)
}

/// A program's absolute path: as it is, below the directory, or in the environment's PATH. It can be executed.
///
/// # Errors
/// Why it cannot be executed, and what to do about it.
pub fn find_program(
    name: &OsStr,
    directory: &Path,
    environment: &BTreeMap<OsString, OsString>,
) -> Result<PathBuf, Diagnostic> {
    if name.as_bytes().contains(&b'/') {
        // Without "./", which would be shown.
        let path: PathBuf = directory.join(name).components().collect();
        return executable(&path).map(|()| path);
    }
    let path = environment.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
    let mut forbidden = None;
    // An empty entry means the working directory, which joining an empty path yields.
    for candidate in std::env::split_paths(path).map(|entry| directory.join(entry).join(name)) {
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(problem) if candidate.is_file() => forbidden = forbidden.or(Some(problem)),
            Err(_) => {}
        }
    }
    Err(forbidden.unwrap_or_else(|| {
        let nearby = ["venv", ".venv", "env"].iter().map(|venv| Path::new(venv).join("bin").join(name));
        let help = match nearby.into_iter().find(|near| directory.join(near).is_file()) {
            Some(near) => format!("write {}", near.display()),
            None => "write its whole path, such as /home/sammy/myprojectdir/venv/bin/gunicorn".to_owned(),
        };
        Diagnostic::error(format!("cannot find {} in PATH ({})", name.display(), path.display())).help(help)
    }))
}

/// Whether a file can be executed.
fn executable(path: &Path) -> Result<(), Diagnostic> {
    let cannot = |why: &str| Diagnostic::error(format!("cannot execute {}: {why}", path.display()));
    let metadata = fs::metadata(path).map_err(|error| {
        if let Some(problem) = not_installed(path) {
            return problem;
        }
        let (why, help) = explain(path, &error);
        let problem = cannot(&why);
        if let Some(help) = help { problem.help(help) } else { problem }
    })?;
    if metadata.is_dir() {
        return Err(cannot("it is a directory").help("name the program in it"));
    }
    if !metadata.is_file() {
        return Err(cannot("it is not a regular file"));
    }
    if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() {
        return Err(cannot("permission denied").help(format!("chmod a+x {}", path.display())));
    }
    match script_interpreter(path) {
        Some(interpreter) => executable_interpreter(path, &interpreter),
        None => Ok(()),
    }
}

/// A virtual environment that is there, in which the program is missing: the commonest case has the best answer.
fn not_installed(path: &Path) -> Option<Diagnostic> {
    let (bin, name) = (path.parent()?, path.file_name()?);
    let python = bin.join("python");
    if path.is_symlink() || name.as_bytes().starts_with(b"python") || !python.exists() || bin.file_name()? != "bin" {
        return None;
    }
    let (place, name) = (bin.parent()?.display(), name.to_string_lossy());
    let problem = Diagnostic::error(format!("{name} is not installed in the virtual environment {place}"));
    // A name that nobody knows is no package's name, and what has it may be anybody's.
    Some(match (adapter::package_of(&name), alike_in(bin, &name)) {
        (Some(package), _) => problem.help(format!("{} -m pip install {package}", python.display())),
        (None, Some(alike)) => problem.help(format!("did you mean {alike}?")),
        (None, None) => problem,
    })
}

/// The program of a directory with the name that is nearest to one.
fn alike_in(directory: &Path, name: &str) -> Option<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MAX_COMPARED);
    let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    nearest(name, names.iter().map(String::as_str)).map(|alike| directory.join(alike).display().to_string())
}

/// The program named by a script's first line. A script that cannot be read is left to the kernel to judge.
fn script_interpreter(path: &Path) -> Option<PathBuf> {
    let head = regular_file::head(path, SCRIPT_HEAD).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let program = line.split(|byte| byte.is_ascii_whitespace()).next()?;
    (!program.is_empty()).then(|| OsStr::from_bytes(program).into())
}

fn executable_interpreter(script: &Path, interpreter: &Path) -> Result<(), Diagnostic> {
    let why = match fs::metadata(interpreter) {
        Err(error) => explain(interpreter, &error).0,
        Ok(metadata) if !metadata.is_file() => format!("{} is no file", interpreter.display()),
        Ok(_) => match rustix::fs::access(interpreter, rustix::fs::Access::EXEC_OK) {
            Err(_) => "permission denied".to_owned(),
            Ok(()) => return Ok(()),
        },
    };
    let (script, interpreter) = (script.display(), interpreter.display());
    let message = format!("cannot execute {script}: its first line names {interpreter}: {why}");
    let help = "if the virtual environment was moved, or its Python removed by an upgrade, create it again";
    Err(Diagnostic::error(message).help(help))
}

/// Why a path cannot be reached: which part of it is missing, is no directory, or may not be entered. And a help.
fn explain(path: &Path, error: &io::Error) -> (String, Option<String>) {
    let mut parts: Vec<&Path> = path.ancestors().collect();
    parts.reverse();
    for part in parts {
        let shown = part.display();
        match (fs::symlink_metadata(part), fs::metadata(part)) {
            (Ok(link), Err(gone)) if link.is_symlink() && gone.kind() == io::ErrorKind::NotFound => {
                let target = fs::read_link(part).unwrap_or_default();
                return (format!("{shown} is a link to {}, which does not exist", target.display()), None);
            }
            (_, Ok(metadata)) if part != path && !metadata.is_dir() => {
                return (format!("{shown} is not a directory"), None);
            }
            (Err(gone), _) if gone.kind() == io::ErrorKind::NotFound => {
                let what =
                    if part == path { "it does not exist".to_owned() } else { format!("{shown} does not exist") };
                return (what, None);
            }
            (Err(denied), _) if denied.kind() == io::ErrorKind::PermissionDenied => {
                // The part is below the directory that may not be entered.
                let closed = part.parent().unwrap_or(part).display();
                let help = format!("the service's user needs the x permission on {closed}: see `namei -l {closed}`");
                return (format!("no permission to enter {closed}"), Some(help));
            }
            _ => {}
        }
    }
    (error.to_string(), None)
}

#[cfg(test)]
mod tests;
