//! Whether the server will find what its command line names: gunicorn its Python, its configuration file and the
//! application, uWSGI its files.
//!
//! Python decides at run time where a module comes from. What is certain is an error; all else is a warning.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::adapter::gunicorn::{self, GunicornArgs};
use crate::adapter::python::Launcher;
use crate::adapter::{self, Making, declared_sockets};
use crate::app::{Command, text};
use crate::config::{self, Script};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::doctor::facts::alike;

use super::{module, options, version};

/// Checks a command: as it is written, and as it was resolved. Of servers that are executed for each worker, what their
/// adapters read; of the Python servers, their options and their application.
pub(super) fn check(written: &[OsString], command: &Command) -> Diagnostics {
    let mut problems = Diagnostics::default();
    if adapter::is_unknown(adapter::recognise(written)) {
        let hidden = adapter::hidden_server(written).map(adapter::hidden_server_note);
        problems.extend(hidden.map(Diagnostic::warning));
    }
    let server = match adapter::recognise(written).making {
        Making::Template(server) => server,
        Making::Exec(exec) => {
            match config::plan(exec, written, command) {
                Ok(plan) => plan.warnings.into_iter().for_each(|text| problems.push(Diagnostic::warning(text))),
                Err(why) => problems.push(Diagnostic::error(why)),
            }
            return problems;
        }
    };
    let Some(invocation) = server.invocation(written) else { return problems };
    if let Launcher::Script(_) = invocation.launcher {
        check_interpreter(server.script, command, &mut problems);
    }
    let packages = options::packages_of(&command.program);
    // Of another version, its options and what it does with them are of no use.
    if let Some(too_old) = version::check(server, command, &packages) {
        problems.push(too_old);
        return problems;
    }
    let installed = options::Known::installed(server.script, &packages);
    if let Some(installed) = &installed {
        let wrong = installed.problems(server.script, invocation.arguments);
        wrong.into_iter().for_each(|text| problems.push(Diagnostic::error(text)));
    }
    if std::ptr::eq(server, &raw const gunicorn::PYTHON) {
        check_gunicorn(invocation.arguments, command, &packages, installed.is_some(), &mut problems);
    } else if let Some(application) = application(invocation.arguments) {
        let own = declared_sockets::values(invocation.arguments.iter().map(|word| text::from_os(word)), &["--app-dir"]);
        let directory =
            own.last().map_or_else(|| command.directory.clone(), |own| command.directory.join(text::to_os(own)));
        let path = ImportPath { directory, more: Vec::new(), certain: true };
        problems.extend(missing(server.script, &application, &path, command, &packages));
    }
    problems
}

/// The word `MODULE:NAME` of a server's command line, if there is exactly one.
fn application(arguments: &[OsString]) -> Option<String> {
    let name = |text: &str| {
        let mut letters = text.chars();
        letters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
            && letters.all(|letter| letter.is_alphanumeric() || letter == '_' || letter == '.')
    };
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let mut found = words.iter().filter(|word| {
        word.split_once(':')
            .is_some_and(|(module, object)| name(module) && name(object.split('(').next().unwrap_or_default()))
    });
    found.next().filter(|_| found.next().is_none()).map(|word| (*word).to_owned())
}

fn check_gunicorn(
    arguments: &[OsString],
    command: &Command,
    packages: &[PathBuf],
    options_are_known: bool,
    problems: &mut Diagnostics,
) {
    let known = GunicornArgs::read(arguments, &command.environment);
    // gunicorn refuses them all. Of long options its own source has spoken already, if it is there.
    let spoken = |doubt: &str| options_are_known && (doubt.contains("no option \"--") || doubt.contains(" may mean "));
    for doubt in known.doubts.iter().filter(|doubt| !spoken(doubt)) {
        problems.push(Diagnostic::error(doubt.clone()));
    }
    for bind in &known.bind {
        if let Err(why) = GunicornArgs::address(bind)
            && GunicornArgs::name(bind).is_none()
        {
            let help = "without a socket unit, sockd cannot bind it";
            problems.push(Diagnostic::warning(format!("--bind: {why}")).help(help));
        }
    }
    // gunicorn looks for its configuration file before it changes the directory.
    let file = known.config.as_ref().and(known.config_file());
    let file = file.map(|file| command.directory.join(text::to_os(file)));
    if let Some(missing) = file.as_ref().filter(|file| !file.exists()) {
        problems.push(Diagnostic::error(format!("gunicorn's --config {} does not exist", missing.display())));
    }
    let directory = known
        .chdir
        .as_ref()
        .map_or_else(|| command.directory.clone(), |chdir| command.directory.join(text::to_os(chdir)));
    if !directory.is_dir() {
        problems.push(Diagnostic::error(format!("gunicorn's --chdir {} is no directory", directory.display())));
        return;
    }
    // Which word is the application is not known where an option is not.
    if !known.doubts.is_empty() {
        return;
    }
    let configured = known.config.is_some() || command.directory.join("gunicorn.conf.py").exists();
    match &known.application {
        Some(application) => {
            let more = known
                .pythonpath
                .iter()
                .flat_map(|paths| paths.split(','))
                .map(|path| directory.join(text::to_os(path.trim())));
            let path = ImportPath { more: more.collect(), directory: directory.clone(), certain: !configured };
            problems.extend(missing("gunicorn", application, &path, command, packages));
        }
        None if configured => {}
        None => {
            let help = suggestion(&directory).unwrap_or_else(|| "add myproject.wsgi:application at the end".to_owned());
            problems.push(Diagnostic::warning("gunicorn's command line names no application").help(help));
        }
    }
}

fn check_interpreter(server: &str, command: &Command, problems: &mut Diagnostics) {
    // One that its launcher finds.
    if !command.program.is_absolute() {
        return;
    }
    match config::script(&command.program) {
        Err(why) => problems.push(Diagnostic::warning(why)),
        Ok(Script::Shim(_)) => {}
        Ok(Script::Other(why)) => {
            let message = format!("{why}: sockd runs it as it is, once for each worker");
            problems.push(Diagnostic::warning(message).help(adapter::WRITE_THE_SERVER));
        }
        Ok(Script::Python(program, _)) => {
            let found = config::find_program(program.as_os_str(), &command.directory, &command.environment);
            problems.extend(found.err().map(|problem| {
                let message = format!("{server}'s Python: {}", problem.message);
                Diagnostic { message, ..problem }
            }));
        }
    }
}

/// Where a server looks for the application.
struct ImportPath {
    /// The directory that it puts at the beginning of Python's path.
    directory: PathBuf,
    /// What its options add to that.
    more: Vec<PathBuf>,
    /// No file of its own may add more.
    certain: bool,
}

/// Where one path of Python's leads with a module.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// To the module.
    Yes,
    /// To a package that does not have it: this one.
    No(PathBuf),
    /// It cannot be decided: not here, or in a package that may be spread over several directories.
    Elsewhere,
}

/// What is wrong with `MODULE:NAME`, if its module or its name cannot be found.
fn missing(
    server: &str,
    application: &str,
    path: &ImportPath,
    command: &Command,
    packages: &[PathBuf],
) -> Option<Diagnostic> {
    let directory = &path.directory;
    let (module, name) = application.split_once(':').unwrap_or((application, ""));
    let module = module.trim();
    if directory.join(module).is_file() {
        let name = module.trim_end_matches(".py").replace('/', ".");
        let message = format!("{application:?} names a file; {server} wants a module");
        return Some(
            Diagnostic::error(message).help(format!("write {name}:application, or what the callable is called")),
        );
    }
    let variable = command.environment.get(OsStr::new("PYTHONPATH")).map(OsString::as_os_str).unwrap_or_default();
    let inherited = std::env::split_paths(variable).map(|path| command.directory.join(path));
    let mut result = Found::Elsewhere;
    for root in std::iter::once(directory.clone()).chain(path.more.iter().cloned()).chain(inherited) {
        match find(&root, module) {
            Found::Yes => {
                let file = root.join(module.replace('.', "/"));
                let files = [file.with_extension("py"), file.join("__init__.py")];
                let file = files.iter().find(|file| file.is_file())?;
                return module::missing_name(file, name).map(Diagnostic::error);
            }
            no @ Found::No(_) if result == Found::Elsewhere => result = no,
            Found::No(_) | Found::Elsewhere => {}
        }
    }
    let problem = match result {
        Found::No(package) if path.certain => {
            Diagnostic::error(format!("cannot find {module}: it is not in {}", package.display()))
        }
        _ if path.certain && module::installed(module, packages, &command.program) == Some(false) => {
            let shown = directory.display();
            Diagnostic::error(format!("cannot find the module {module}: it is not in {shown}, and not installed"))
        }
        // The configuration file may change the path; site-packages may have it.
        Found::Yes | Found::No(_) | Found::Elsewhere => {
            Diagnostic::warning(format!("cannot see the module {module} in {}", directory.display()))
        }
    };
    let name = if name.is_empty() { "application" } else { name };
    let alike = || alike::module_in(module, directory).map(|meant| format!("did you mean {meant}:{name}?"));
    let help = alike().or_else(|| suggestion(directory));
    Some(if let Some(help) = help { problem.help(help) } else { problem })
}

/// Follows a module's name from one directory of Python's path.
fn find(root: &Path, module: &str) -> Found {
    let mut place = root.to_owned();
    let mut parts = module.split('.').peekable();
    while let Some(part) = parts.next() {
        let directory = place.join(part);
        // Python prefers a package with an __init__.py to a module, and a module to a bare directory.
        if !is_module(&directory, "__init__") && is_module(&place, part) {
            return match parts.peek() {
                None => Found::Yes,
                Some(_) => Found::No(place.join(format!("{part}.py"))),
            };
        }
        if !directory.is_dir() {
            // Other directories of the path may have more of a package without an __init__.py, and all else.
            let closed = place != root && is_module(&place, "__init__");
            return if closed { Found::No(place) } else { Found::Elsewhere };
        }
        place = directory;
    }
    Found::Yes
}

/// `wsgi.py`, or compiled: `wsgi.pyc`, `wsgi.cpython-311-x86_64-linux-gnu.so`.
fn is_module(directory: &Path, name: &str) -> bool {
    let prefix = format!("{name}.");
    fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
        let file = entry.file_name();
        let ending = file.to_str().and_then(|file| file.strip_prefix(&prefix));
        ending.is_some_and(|ending| matches!(ending, "py" | "pyc") || ending.ends_with("so"))
    })
}

/// An application that is there: what Django's startproject and the guides make.
fn suggestion(directory: &Path) -> Option<String> {
    let mut packages: Vec<_> = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.file_name()).collect();
    packages.sort();
    let package = packages.iter().find(|package| directory.join(package).join("wsgi.py").is_file());
    match package {
        Some(package) => Some(format!("did you mean {}.wsgi:application?", package.to_str()?)),
        None => directory.join("wsgi.py").is_file().then(|| "did you mean wsgi:app or wsgi:application?".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A Django project as the guide makes it, with a virtual environment that holds a gunicorn.
    struct Project(PathBuf);

    impl Project {
        fn new(name: &str) -> Self {
            let room = std::env::temp_dir().join(format!("sockd-application-{name}-{}", std::process::id()));
            let project = Self(room);
            for file in ["manage.py", "myproject/__init__.py", "myproject/wsgi.py", "spread/part.py", "other/lib.py"] {
                project.file(file, "application = app = None\n");
            }
            // Whatever it is: it is looked at and never executed.
            let python = project.0.join("venv/bin/python3");
            project.file("venv/bin/gunicorn", &format!("#!{}\n", python.display()));
            std::os::unix::fs::symlink("/bin/sh", python).expect("a link can be made");
            project
        }

        fn file(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().expect("it has a parent")).expect("a directory can be made");
            fs::write(path, text).expect("a file can be written");
        }

        fn lines(&self, arguments: &str, variables: &[(&str, &str)]) -> Vec<String> {
            let mut written = vec![OsString::from("venv/bin/gunicorn")];
            written.extend(arguments.split_whitespace().map(OsString::from));
            let environment: BTreeMap<_, _> =
                variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
            let program = self.0.join("venv/bin/gunicorn");
            let command = Command {
                program,
                arguments: written.clone(),
                launcher: Vec::new(),
                directory: self.0.clone(),
                environment,
            };
            let problems = check(&written, &command);
            let place = format!("{}/", self.0.display());
            problems.iter().map(|d| format!("{}: {}", d.severity, problems.line(d)).replace(&place, "")).collect()
        }
    }

    impl Drop for Project {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_there_is_found() {
        let project = Project::new("found");
        for line in [
            "--workers 3 --bind unix:/run/gunicorn.sock myproject.wsgi:application",
            "myproject:application",
            "spread.part:app",
            "manage",
            "--pythonpath other lib:app",
            "--chdir myproject wsgi",
        ] {
            assert_eq!(project.lines(line, &[]), Vec::<String>::new(), "{line}");
        }
        assert_eq!(project.lines("lib:app", &[("PYTHONPATH", "/x:other")]), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_is_reported() {
        let project = Project::new("missing");
        let place = project.0.display().to_string();
        for (line, expected) in [
            ("myproject.wsgj:application", "error: cannot find myproject.wsgj: it is not in myproject; did you mean myproject.wsgi:application?".to_owned()),
            ("myproject.wsgi.app", "error: cannot find myproject.wsgi.app: it is not in myproject/wsgi.py; did you mean myproject.wsgi:application?".to_owned()),
            ("mysite.wsgi", format!("warning: cannot see the module mysite.wsgi in {place}; did you mean myproject.wsgi:application?")),
            ("spread.other:app", format!("warning: cannot see the module spread.other in {place}; did you mean myproject.wsgi:application?")),
            ("myproject/wsgi.py", "error: \"myproject/wsgi.py\" names a file; gunicorn wants a module; write myproject.wsgi:application, or what the callable is called".to_owned()),
            ("-w 3", "warning: gunicorn's command line names no application; did you mean myproject.wsgi:application?".to_owned()),
            ("-c conf.py myproject", "error: gunicorn's --config conf.py does not exist".to_owned()),
            ("--chdir src myproject", "error: gunicorn's --chdir src is no directory".to_owned()),
            ("--wrokers=3 myproject", "error: gunicorn has no option \"--wrokers=3\"; did you mean --workers?".to_owned()),
            ("--worker 3 myproject", "error: \"--worker\" may mean --worker-class or --worker-connections or --worker-tmp-dir or --workers".to_owned()),
            ("myproject.wsgi:aplication", "error: myproject/wsgi.py has no aplication; did you mean application?".to_owned()),
        ] {
            assert_eq!(project.lines(line, &[]), [expected], "{line}");
        }
        assert_eq!(project.lines("-b example.com:80 myproject", &[]), [""; 0]);
        assert_eq!(project.lines("-b example.com:http myproject", &[]).len(), 1);
    }

    #[test]
    fn with_a_configuration_file_less_is_certain() {
        let project = Project::new("configured");
        project.file("gunicorn.conf.py", "");
        assert!(project.lines("myproject.wsgj", &[])[0].starts_with("warning: "));
        assert_eq!(project.lines("-w 3", &[]), Vec::<String>::new());
    }

    #[test]
    fn a_missing_python_is_reported() {
        let project = Project::new("python");
        project.file("venv/bin/gunicorn", "#!/bin/sh\n'''exec' \"/gone/bin/python3\" \"$0\" \"$@\"\n");
        assert_eq!(
            project.lines("myproject", &[]),
            ["error: gunicorn's Python: cannot execute /gone/bin/python3: /gone does not exist"]
        );
        project.file("venv/bin/gunicorn", "#!/usr/bin/env python3\n");
        assert!(
            project.lines("myproject", &[("PATH", "/gone")])[0]
                .starts_with("error: gunicorn's Python: cannot find python3 in PATH")
        );
        project.file("venv/bin/gunicorn", "#!/bin/sh\nexec something\n");
        assert!(project.lines("myproject", &[])[0].starts_with("warning: venv/bin/gunicorn is not run by Python"));
    }
}
