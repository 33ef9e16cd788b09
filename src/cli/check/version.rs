//! Whether a server and its Python are new enough for its template, read from the names of what is installed.
//!
//! Owns: the reading of those names. Never: runs Python, which would run what the user has installed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::adapter::python::{OLDEST_PYTHON, Python};
use crate::app::Command;
use crate::diagnostic::Diagnostic;

/// What is too old, if anything is: what the template would say and end with. It is an error where the program's virtual
/// environment alone decides; elsewhere Python may find another one.
pub(super) fn check(server: &Python, command: &Command, packages: &[PathBuf]) -> Option<Diagnostic> {
    let prefix = command.program.parent().and_then(Path::parent)?;
    let environment = prefix.join("pyvenv.cfg").is_file();
    let certain = environment && !command.environment.contains_key(OsStr::new("PYTHONPATH"));
    let problem = |text: String| if certain { Diagnostic::error(text) } else { Diagnostic::warning(text) };
    let (major, minor) = OLDEST_PYTHON;
    if let Some(python) = python_of(prefix).filter(|version| *version < OLDEST_PYTHON) {
        let shown = prefix.display();
        let text = format!("sockd needs Python {major}.{minor} or later, and {shown} has {}.{}", python.0, python.1);
        return Some(problem(text).help("make the virtual environment again with a newer one"));
    }
    let package = server.package;
    let newest = versions_of(package, packages).max_by_key(|version| numbers(version))?;
    let (major, minor) = server.oldest;
    if !is_older(&newest, server.oldest) {
        return None;
    }
    let text = format!("sockd needs {package} {major}.{minor} or later, and this is {newest}");
    Some(problem(text).help(match environment {
        true => format!("{} -m pip install --upgrade {package}", prefix.join("bin/python").display()),
        false => "install a newer one in a virtual environment".to_owned(),
    }))
}

/// The newest Python whose library stands below this directory.
fn python_of(prefix: &Path) -> Option<(u32, u32)> {
    let names = names_in(&prefix.join("lib"));
    let version = |name: String| {
        let (major, minor) = name.strip_prefix("python")?.split_once('.')?;
        Some((major.parse().ok()?, leading_number(minor)?))
    };
    names.filter_map(version).max()
}

/// The versions of a package, by the directories of its metadata: `gunicorn-19.8.1.dist-info`, or Debian's
/// `gunicorn-20.1.0.egg-info`.
fn versions_of<'a>(package: &'a str, packages: &'a [PathBuf]) -> impl Iterator<Item = String> + 'a {
    let version = move |name: String| {
        let name = name.strip_suffix(".dist-info").or_else(|| name.strip_suffix(".egg-info"))?;
        let mut parts = name.split('-');
        (parts.next()?.eq_ignore_ascii_case(package)).then(|| parts.next().map(str::to_owned))?
    };
    packages.iter().flat_map(|directory| names_in(directory)).filter_map(version)
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// A version's first two numbers.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| leading_number(part).unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn leading_number(text: &str) -> Option<u32> {
    text[..text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len())].parse().ok()
}

/// As `is_older` of `template.py`: a version without numbers, as a checkout may have it, is not.
fn is_older(version: &str, oldest: (u32, u32)) -> bool {
    let numbers = numbers(version);
    numbers != (0, 0) && numbers < oldest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{ADAPTERS, Making};
    use std::collections::BTreeMap;

    struct Environment(PathBuf);

    impl Environment {
        /// A virtual environment of this Python, with the metadata of these packages.
        fn new(name: &str, python: &str, metadata: &[&str]) -> Self {
            let place = std::env::temp_dir().join(format!("sockd-version-{name}-{}", std::process::id()));
            for name in metadata.iter().copied().chain([""]) {
                fs::create_dir_all(place.join("lib").join(python).join("site-packages").join(name)).expect("made");
            }
            fs::write(place.join("pyvenv.cfg"), "").expect("written");
            Self(place)
        }

        fn check(&self, script: &str, variables: &[(&str, &str)]) -> Option<String> {
            let environment: BTreeMap<_, _> =
                variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
            let program = self.0.join("bin").join(script);
            let command = Command {
                arguments: vec![program.clone().into()],
                launcher: Vec::new(),
                directory: self.0.clone(),
                environment,
                program,
            };
            let packages = super::super::options::packages_of(&command.program);
            let server = servers().find(|server| server.script == script).expect("it is known");
            let problem = check(server, &command, &packages)?;
            let help = problem.help.unwrap_or_default();
            let place = format!("{}/", self.0.display());
            Some(format!("{}: {}; {help}", problem.severity, problem.message).replace(&place, ""))
        }
    }

    impl Drop for Environment {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn servers() -> impl Iterator<Item = &'static Python> {
        ADAPTERS.iter().filter_map(|adapter| match adapter.making {
            Making::Template(python) => Some(python),
            Making::Exec(_) => None,
        })
    }

    #[test]
    fn what_is_too_old_is_named_with_its_remedy() {
        let old = Environment::new(
            "old",
            "python3.9",
            &["gunicorn-19.8.1.dist-info", "Waitress-1.3.1-py3.9.egg-info", "uvicorn-0.15.0.dist-info", "daphne"],
        );
        assert_eq!(
            old.check("gunicorn", &[]).as_deref(),
            Some(
                "error: sockd needs gunicorn 19.9 or later, and this is 19.8.1; bin/python -m pip install --upgrade gunicorn"
            )
        );
        assert_eq!(
            old.check("waitress-serve", &[("PYTHONPATH", "lib")]).as_deref(),
            Some(
                "warning: sockd needs waitress 1.4 or later, and this is 1.3.1; bin/python -m pip install --upgrade waitress"
            )
        );
        // Just new enough; of a version that nothing shows; and not there.
        for script in ["uvicorn", "daphne", "hypercorn"] {
            assert_eq!(old.check(script, &[]), None, "{script}");
        }
        fs::remove_file(old.0.join("pyvenv.cfg")).expect("removed");
        let system = old.check("gunicorn", &[]).expect("it is old there, too");
        assert!(system.starts_with("warning: ") && system.ends_with("install a newer one in a virtual environment"));
    }

    #[test]
    fn a_python_that_is_too_old_is_named() {
        for python in ["python3.6", "python2.7"] {
            let old = Environment::new(python, python, &["gunicorn-19.8.1.dist-info"]);
            let text = old.check("gunicorn", &[]).expect("it is too old");
            let version = python.trim_start_matches("python");
            assert!(text.starts_with("error: sockd needs Python 3.7 or later, and "), "{text}");
            assert!(text.ends_with(&format!(" has {version}; make the virtual environment again with a newer one")));
        }
        for python in ["python3.7", "python3.14t", "python3"] {
            assert_eq!(Environment::new(python, python, &["gunicorn-27.0.1.dist-info"]).check("gunicorn", &[]), None);
        }
    }

    #[test]
    fn versions_are_compared_by_their_first_two_numbers() {
        for (version, older) in [
            ("19.8.1", true),
            ("19.10.0", false),
            ("2.9", true),
            ("20.0b1", false),
            ("19", true),
            ("20", false),
            ("19.9rc1", false),
            ("0.0.0", false),
            ("unknown", false),
            ("0+g1234", false),
        ] {
            assert_eq!(is_older(version, (19, 9)), older, "{version}");
        }
    }

    #[test]
    fn the_templates_have_the_same_oldest_versions() {
        for server in servers() {
            let line = format!("    oldest = {}, {}\n", server.oldest.0, server.oldest.1);
            let package = server.package().expect(server.script);
            assert_eq!(package.matches("\n    oldest = ").count(), 1, "{}", server.script);
            assert!(package.contains(&line), "{}", server.script);
        }
        let (major, minor) = OLDEST_PYTHON;
        assert!(crate::adapter::python::BOOTSTRAP.contains(&format!("if sys.version_info < ({major}, {minor}):")));
    }
}
